"""What a setting's precision means, for the deviations that a notebook prints."""

from __future__ import annotations

_CLIPS = " Norms, clipping, sums and noise are IEEE float32."
_SAID = {
    "tf32": "Products of float32 matrices in the model's passes, scoring included, round their factors to "
    "TF32 on a GPU that has it (a CPU computes them as float32).",
    "bf16": "The model's passes, scoring included, run in bfloat16 by autocast; the adapter, its gradients "
    "and the losses are float32.",
}


def precision_note(precision: str, private: bool = False) -> list[str]:
    """One sentence on a precision (see `training.precision`) that is not plain float32; else none."""
    if precision not in _SAID:
        return []
    return [_SAID[precision] + (_CLIPS if private else "") + " The number format is chosen here."]
