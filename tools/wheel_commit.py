"""Hatch's hook at a build: wheel and source archive say of which commit they are (`provenance.git_state`)."""

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NAME = "fedlora_kit/_commit.json"
SHIPPED = ("fedlora_kit", "notebooks", "data", "pyproject.toml", "tools/wheel_commit.py")


class Commit(BuildHookInterface[Any]):
    """Adds `NAME`, unless the source is no checkout, or an archive that holds it already."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        if (root / NAME).is_file():
            return
        try:
            self._git("ls-files", "--error-unmatch", NAME.replace("_commit.json", "__init__.py"))
            commit, changes = self._git("rev-parse", "HEAD"), self._git("status", "--porcelain", *SHIPPED)
        except (OSError, subprocess.CalledProcessError):
            return
        self._folder = tempfile.TemporaryDirectory()
        file = Path(self._folder.name) / "commit.json"
        file.write_text(json.dumps({"commit": commit.strip(), "dirty": bool(changes.strip())}))
        build_data["force_include"][str(file)] = NAME

    def _git(self, *arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=True).stdout
