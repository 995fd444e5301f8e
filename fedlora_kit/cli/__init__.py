"""The command line: ``fedlora``."""

from fedlora_kit.cli.main import app, main

__all__ = ["app", "main"]
