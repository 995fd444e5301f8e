"""One readable path from a partition to a history."""
