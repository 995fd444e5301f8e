"""Executed notebooks: strict parameters, one process each, outputs that appear whole or not at all."""
