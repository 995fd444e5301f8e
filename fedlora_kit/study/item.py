"""What an item is, and the paper that it belongs to: the kit's or a user's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from fedlora_kit import paths
from fedlora_kit.errors import UnknownName

Kind = Literal["table", "figure", "lesson"]
KINDS: tuple[Kind, ...] = get_args(Kind)


PROFILES = ("smoke", "laptop", "small", "paper")


def check_profile(name: str) -> str:
    """The name of a profile.

    Raises:
        UnknownName: there is no such profile.
    """
    if name not in PROFILES:
        raise UnknownName("profile", name, PROFILES)
    return name


@dataclass(frozen=True)
class Paper:
    """A paper: its short id, its title and where it appeared."""

    id: str
    title: str
    reference: str


@dataclass(frozen=True)
class Item:
    """One table, figure or lesson.

    Args:
        id: ``<paper>/<name>``; without a paper ``lessons/<name>``, ``own/<name>`` or the bare name.
        kind: what its notebook makes.
        title: what it shows.
        section: where it stands in the paper, as far as that is known.
        foundation: how well the paper's content is known, in one phrase (labels as in `papers.items`).
        stem: name of the notebook's file without ending, where it does not bear the item's name (several
            items share it).
        parameters: what that notebook is given to be this item's; nobody else may set them.
        module: the file of the paper's room that has its ``runs(profile, **parameters)``, where that does
            not bear the item's name.
        folder: where its notebook lies, if not in the kit's ``notebooks/<paper>``; a user's paper gets it
            from the place of its own files (`papers.rooms`).
    """

    id: str
    kind: Kind
    title: str
    section: str
    foundation: str
    stem: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    module: str = ""
    folder: str = ""

    @property
    def paper(self) -> str:
        """Id of the paper, ``""`` for a lesson of the kit's own."""
        return "" if self._group in ("lessons", "own") else self._group

    @property
    def name(self) -> str:
        """The id without the paper."""
        return self.id.rpartition("/")[2]

    @property
    def path(self) -> Path:
        """Where its notebook lies, or will."""
        folder = Path(self.folder) if self.folder else paths.notebooks_dir() / self._group
        return folder / f"{self.stem or self.name}.ipynb"

    @property
    def notebook(self) -> str | None:
        """``<paper>/<file>`` of its notebook, or ``None`` while there is no such file (planned)."""
        return (Path(self._group) / self.path.name).as_posix() if self.path.is_file() else None

    @property
    def _group(self) -> str:
        return self.id.rpartition("/")[0]
