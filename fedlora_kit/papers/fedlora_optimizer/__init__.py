"""FedLoRA-Optimizer (2025): one file an item."""
