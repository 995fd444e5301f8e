"""What an item of the kit is, and the three papers that most of them belong to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedlora_kit import paths

Kind = Literal["table", "figure", "lesson"]


@dataclass(frozen=True)
class Paper:
    """One of the three papers: its short id, its title and where it appeared."""

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
        foundation: how well the paper's content is known, in one phrase (labels as in the module's text).
    """

    id: str
    kind: Kind
    title: str
    section: str
    foundation: str

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
        relative = f"{self.id}.ipynb"
        return relative if (paths.notebooks_dir() / relative).is_file() else None


PAPERS: tuple[Paper, ...] = (
    Paper(
        "ffa-lora",
        "Improving LoRA in Privacy-preserving Federated Learning",
        "ICLR 2024, arXiv 2403.12313",
    ),
    Paper(
        "fed-hello",
        "Fed-HeLLo: Efficient Federated Foundation Model Fine-Tuning with Heterogeneous LoRA Allocation",
        "IEEE TNNLS 36(10) 2025, arXiv 2506.12213",
    ),
    Paper("fedlora-optimizer", "FedLoRA-Optimizer", "arXiv 2510.11274 (2025)"),
)
