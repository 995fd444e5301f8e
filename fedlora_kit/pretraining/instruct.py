"""``kit/instruct-tiny`` and ``kit/instruct-mirror``: small Llamas that know the words, not the instructions.

The recipe is that of `pretraining.causal`. The first reads statements of the built-in instructions'
vocabulary (`data.builtin.instructions.corpus`), the second the real text of Dolly and Natural Instructions:
contexts, inputs and answers of their *training* parts, each as plain text of its own (examples that a run
holds out of its clients' training among them). Neither ever sees an instruction with its response. Statements
of the first may hold an input and its response as two parts of one sentence, of the test part's, too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from fedlora_kit.errors import FedloraError
from fedlora_kit.pretraining.causal import Line, Recipe, build_causal_backbone
from fedlora_kit.pretraining.common import Progress

TINY = Recipe(
    vocabulary=460, hidden=96, layers=4, heads=4, inner=256, steps=1800, tokens=1400, gate=0.6, context=0.05
)
#: for real text
MIRROR = Recipe(
    vocabulary=2000,
    hidden=128,
    layers=4,
    heads=4,
    inner=352,
    steps=500,
    tokens=1600,
    gate=6.0,
    max_length=1024,
    context=1.0,
)
#: characters of a piece of the mirror's text; a longer passage becomes several lines
PIECE = 400


def build_instruct_tiny(out: Path, seed: int, progress: Progress) -> dict[str, Any]:
    """``kit/instruct-tiny``: pre-trained on built-in statements."""
    from fedlora_kit.data.builtin.instructions import corpus

    return build_causal_backbone(corpus(40_000, seed), out, TINY, seed=seed, progress=progress)


def build_instruct_mirror(out: Path, seed: int, progress: Progress) -> dict[str, Any]:
    """``kit/instruct-mirror``: pre-trained on the training parts' texts of Dolly and Natural Instructions.

    For machines without a Hub. No held-out response is read, nor a piece of text that a held-out example
    has, too (a passage may belong to several questions). A model of this size learns what such text looks
    like, little more.

    Raises:
        FedloraError: one of the two data sets cannot be had.
    """
    return build_causal_backbone(mirror_lines(), out, MIRROR, seed=seed, progress=progress)


def mirror_lines() -> list[Line]:
    """Pieces of the training parts' contexts, inputs and answers, without those of the held-out parts."""
    from fedlora_kit.data.sources import load_task
    from fedlora_kit.data.tasks import get_task

    lines: list[str] = []
    for name in ("dolly", "natural_instructions"):
        data = load_task(get_task(name))
        held_out = {_key(piece) for part in data.evals.values() for piece in _pieces(part.columns[1:])}
        lines += [piece for piece in _pieces(data.train.columns[1:]) if _key(piece) not in held_out]
    if not lines:
        raise FedloraError("the training parts hold no text", "check the mirror's files")
    mixed = np.random.default_rng(0).permutation(len(lines))
    return [("", lines[i]) for i in mixed]


def _pieces(columns: Any) -> list[str]:
    """Texts cut between sentences into pieces of about `PIECE` characters; very short ones are left out."""
    found = []
    for text in (str(text) for column in columns for text in column):
        piece = ""
        for sentence in re.split(r"(?<=[.!?])\s+", text.strip()):
            if piece and len(piece) + len(sentence) > PIECE:
                found.append(piece)
                piece = ""
            piece = f"{piece} {sentence}".strip()[: 2 * PIECE]
        found.append(piece)
    return [piece for piece in found if len(piece) >= 20]


def _key(text: str) -> str:
    return re.sub(r"\W+", " ", text).strip().lower()
