"""What an item of the kit is, and the paper that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fedlora_kit import paths
from fedlora_kit.errors import UnknownName

Kind = Literal["table", "figure", "lesson"]


PROFILES = ("smoke", "small", "paper")


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
        stem: of the notebook, where several items share one: its path under ``notebooks/`` without ending.
        parameters: what that notebook is given to be this item's; nobody else may set them.
        module: the file of the paper's room that has its ``runs(profile, **parameters)``, where that does
            not bear the item's name.
    """

    id: str
    kind: Kind
    title: str
    section: str
    foundation: str
    stem: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    module: str = ""

    @property
    def paper(self) -> str:
        """Id of the paper, ``""`` for a lesson of the kit's own."""
        folder = self.id.rpartition("/")[0]
        return "" if folder in ("lessons", "own") else folder

    @property
    def name(self) -> str:
        """The id without the paper."""
        return self.id.rpartition("/")[2]

    @property
    def notebook(self) -> str | None:
        """Path relative to the notebooks' folder, or ``None`` while there is no such file (planned)."""
        relative = f"{self.stem or self.id}.ipynb"
        return relative if (paths.notebooks_dir() / relative).is_file() else None
