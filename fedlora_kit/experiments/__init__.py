"""One training run as a validated, hashable description, and the store of finished runs."""
