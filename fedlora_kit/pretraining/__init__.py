"""The small backbones that the kit makes itself, one recipe a file."""
