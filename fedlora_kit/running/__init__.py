"""Runs side by side: which process and which GPU each gets."""
