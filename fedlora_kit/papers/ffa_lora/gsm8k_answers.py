"""FFA-LoRA on GSM8K: the answers themselves, side by side, and the backbone's own scores before any round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fedlora_kit.adapter import AdapterSlot, load_peft
from fedlora_kit.data.encoded_causal import EncodedCausal
from fedlora_kit.errors import FedloraError
from fedlora_kit.study.grid import Cell
from fedlora_kit.training.evaluation import evaluate
from fedlora_kit.training.generation import generate
from fedlora_kit.training.scoring import right_answers

if TYPE_CHECKING:
    from fedlora_kit.running.many import Finished


def untrained(cell: Cell, device: str = "auto") -> dict[str, Any]:
    """Scores of the backbone alone on what the cell's runs are scored on, as `training.evaluate` gives them.

    LoRA's B is zero at the start, so this is where every run begins.
    """
    fed, data = _world(cell, device)
    return evaluate(fed.model, data, fed.device, fed.rounds.eval_max_tokens, fed.precision)


def side_by_side(
    done: Sequence[tuple[Cell, Finished]], n: int = 4, device: str = "auto"
) -> tuple[pd.DataFrame, list[str]]:
    """The first ``n`` scored questions with the answers of each method's stored adapter, at its first seed.

    Returns:
        A frame with the columns question, reference, and one a method; and the methods that have the
        final number right, a text for each question.

    Raises:
        FedloraError: no run has finished.
    """
    answers: dict[str, list[str]] = {}
    data: EncodedCausal | None = None
    for cell, run in done:
        method = cell.coords["method"]
        if run.entry is None or method in answers:
            continue
        fed, scored = _world(cell, device)
        data = scored.subset(np.arange(min(n, len(scored))))
        AdapterSlot(fed.model).write(
            {k: t.to(fed.device) for k, t in load_peft(run.entry.adapter_dir).items()}
        )
        answers[method] = generate(fed.model, data, fed.device, fed.rounds.eval_max_tokens, fed.precision)
    if data is None:
        raise FedloraError("no run has finished, so there are no answers", "choose smaller learning rates")
    questions = [
        data.decode(data.tokens[start : start + length].tolist())
        for start, length in zip(data.offsets[:-1], data.prompt_lengths, strict=True)
    ]
    right = {method: right_answers(said, data.references, data.metric) for method, said in answers.items()}
    verdicts = [
        ", ".join(method for method in answers if right[method][i]) or "none" for i in range(len(data))
    ]
    first = [accepted[0] for accepted in data.references]
    return pd.DataFrame({"question": questions, "reference": first, **answers}), verdicts


def _world(cell: Cell, device: str) -> tuple[Any, EncodedCausal]:
    """The cell's federation before its first round, and the data it is scored on."""
    from fedlora_kit.experiments.placing import device_for
    from fedlora_kit.experiments.setup import build

    fed = build(cell.spec, device_for(cell.spec, device))
    (data, *_) = fed.evals.values()
    assert isinstance(data, EncodedCausal)
    return fed, data
