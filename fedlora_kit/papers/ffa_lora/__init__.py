"""FFA-LoRA (ICLR 2024): one file an item."""
