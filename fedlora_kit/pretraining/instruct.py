"""``kit/instruct-tiny``: a small Llama that knows the words, not the instructions.

The recipe is that of `pretraining.causal`, on statements of the built-in instructions' vocabulary
(`data.builtin.instructions.corpus`). It never sees an instruction with its response; a statement may hold an
input and its response as two parts of one sentence, of the test part's, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedlora_kit.data.builtin.instructions import corpus
from fedlora_kit.pretraining.causal import Recipe, build_causal_backbone
from fedlora_kit.pretraining.common import Progress

RECIPE = Recipe(vocabulary=460, layers=4, tokens=1400, gate=0.6, context=0.05)


def build_instruct_tiny(out: Path, seed: int, progress: Progress) -> dict[str, Any]:
    """``kit/instruct-tiny``: pre-trained on built-in statements."""
    return build_causal_backbone(corpus(40_000, seed), out, RECIPE, seed=seed, progress=progress)
