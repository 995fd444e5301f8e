"""Tasks that the package makes or holds itself: one generator a file."""
