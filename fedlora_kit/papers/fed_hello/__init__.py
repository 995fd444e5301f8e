"""Fed-HeLLo (IEEE TNNLS 2025): one file an item."""
