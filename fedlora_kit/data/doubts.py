"""What is doubtful about examples under a backbone: in words, for a warning."""

from __future__ import annotations

from fedlora_kit.data.encoded import EncodedData, EncodedText
from fedlora_kit.data.encoded_causal import EncodedCausal
from fedlora_kit.data.task import Task

#: shares from which it is said: of tokens that are unknown, and of texts that are cut
MOST_UNKNOWN, MOST_CUT = 0.1, 0.05
#: a small model whose tokens are parts of words: any text of its alphabet is known to it
TAKE = "sentence-transformers/all-MiniLM-L6-v2"


def doubts(task: Task, backbone: str, train: EncodedData) -> list[str]:
    """One sentence a doubt; none where all is well.

    Args:
        train: the whole training split, as it was encoded for the backbone.
    """
    found = []
    if isinstance(train, EncodedText | EncodedCausal) and train.unknown > MOST_UNKNOWN:
        other = f", such as {TAKE}" if task.modality == "text" else ""
        found.append(
            f"task {task.name}: {_percent(train.unknown)} of the tokens are unknown to {backbone}, which can "
            f"learn nothing from them: take a backbone whose tokens are parts of words{other}"
        )
    if isinstance(train, EncodedText) and train.cut > MOST_CUT:
        found.append(
            f"task {task.name}: {_percent(train.cut)} of the texts are longer than "
            f"{int(train.lengths.max())} tokens and are cut there: raise max_length, as far as the backbone "
            "goes"
        )
    return found


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
