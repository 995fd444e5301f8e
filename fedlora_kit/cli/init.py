"""``fedlora init``: a working folder outside of a checkout, with notebooks and the data that they need."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from fedlora_kit import __version__, disk, paths
from fedlora_kit.cli.common import folder_of
from fedlora_kit.cli.verbosity import warn
from fedlora_kit.errors import BadValue
from fedlora_kit.experiments import atomic
from fedlora_kit.numerals import size

_LAID = ("notebooks", "data/reported", "data/backbones")
_NOT_THE_KITS = {"own", ".ipynb_checkpoints", "__pycache__"}


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", parser=folder_of("DIR"), help="The folder; made if need be.")
    ],
) -> None:
    """Lay a working folder: notebooks, published numbers, the kit's small backbones, an empty store.

    Inside it all commands and JupyterLab work as in a checkout, and what they make stays there. Again in a
    folder that is there: what is missing or unchanged becomes as this version of the kit has it, and what
    you have changed is kept.

    \b
    Example:
      fedlora init ~/federated
      cd ~/federated
      fedlora reproduce start_here
      jupyter lab notebooks/start_here.ipynb
    """
    laid, kept = lay(folder)
    typer.echo(f"laid {len(laid)} files in {folder} ({size(sum(path.stat().st_size for path in laid))})")
    for path in kept:
        typer.echo(f"kept {path.relative_to(folder)}: it is changed; move it away for the kit's own")
    if "FEDLORA_HOME" in os.environ and paths.home() != folder:
        warn(f"FEDLORA_HOME names {paths.home()}: the commands use that, also inside {folder}")
    typer.echo(f"\nNext:\n  cd {folder}\n  fedlora reproduce start_here")
    typer.echo("  jupyter lab notebooks/start_here.ipynb")


def lay(folder: Path) -> tuple[list[Path], list[Path]]:
    """Lay a working folder, or bring one up to this version.

    A notebook and its .py twin are one thing: if either is changed, both stay as they are.

    Returns:
        The files that were written, and those of the user that differ from the kit's, which were not.

    Raises:
        BadValue: it is the checkout.
        FedloraError: it cannot be written.
    """
    source = paths.checkout() or paths.INSTALLED
    if folder == source:
        raise BadValue(f"{folder} is the kit's checkout, and needs none", "name another folder")
    known = _known(folder)
    wanted = {name: path for part in _LAID for name, path in _files(source, part)}
    digests = {name: atomic.sha256_file(path) for name, path in wanted.items()}
    there = {name: atomic.sha256_file(folder / name) for name in wanted if (folder / name).is_file()}
    changed = [name for name, found in there.items() if found not in (digests[name], known.get(name))]
    mine = {str(Path(name).with_suffix("")) for name in changed}
    laid = []
    for name, path in wanted.items():
        if str(Path(name).with_suffix("")) in mine:
            digests[name] = known.get(name, "")
        elif there.get(name) != digests[name]:
            atomic.write_bytes(folder / name, path.read_bytes())
            laid.append(folder / name)
    for name in ("data/runs", "figures"):
        with disk.disk_guard(folder / name):
            (folder / name).mkdir(parents=True, exist_ok=True)
    atomic.write_json(folder / paths.MARKER, {"fedlora-kit": __version__, "files": digests})
    return laid, [folder / name for name in changed]


def laid_by(folder: Path) -> str | None:
    """The version of the kit that laid a working folder; ``None`` where there is none."""
    found = _marker(folder).get("fedlora-kit")
    return str(found) if found else None


def _files(source: Path, part: str) -> list[tuple[str, Path]]:
    files = sorted(path for path in (source / part).rglob("*") if path.is_file())
    named = [(path.relative_to(source), path) for path in files]
    return [(name.as_posix(), path) for name, path in named if not _NOT_THE_KITS & {*name.parts}]


def _known(folder: Path) -> dict[str, str]:
    """SHA-256 of each file as the kit laid it last."""
    files = _marker(folder).get("files")
    return files if isinstance(files, dict) else {}


def _marker(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / paths.MARKER).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
