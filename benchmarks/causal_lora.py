"""LoRA on causal language models: PEFT's layers, one node of the graph a layer, and clients in a stack.

    python benchmarks/causal_lora.py [--repeats 9]

The gradients of 4 clients with 4 texts each, some 50 tokens of which the last 10 are the answer, through a
Llama of 4 layers with LoRA on q, k, v, o. In turn, on one thread, by CPU time.

* peft: client after client, PEFT's layers.
* node: client after client, `training.lora_stack`'s layer with one group.
* stack: all clients in one pass, a group each: what the round loop does where it can.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from pairs import CPU, in_turn, line, options, ratio, store

from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.data.encoded_causal import EncodedCausal
from fedlora_kit.models.lora import LoraSettings, attach_lora
from fedlora_kit.training.lora_stack import LoraStack
from fedlora_kit.training.objective import answer_logits, answer_losses

CLIENTS, ROWS, ANSWER, VOCABULARY = 4, 4, 10, 2000


def texts(n: int) -> EncodedCausal:
    """n random texts of 40 to 60 tokens."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(40, 61, n)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = rng.integers(4, VOCABULARY, offsets[-1]).astype(np.int32)
    labels = np.zeros(n, np.int64)
    return EncodedCausal(tokens, offsets, lengths - ANSWER, labels, (("",),) * n, None, ANSWER)


class _Tokens(EncodedCausal):
    @property
    def pad(self) -> int:
        return 0


def measure(width: int, repeats: int) -> dict[str, object]:
    """Paired ratios for one width."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    model = attach_lora(transformers.LlamaForCausalLM(config), LoraSettings(rank=8), seed=0).train()
    slot = AdapterSlot(model)
    slot.set_trainable(slot.names)
    plain = texts(CLIENTS * ROWS)
    data = _Tokens(**plain.__dict__)
    parts = [np.arange(k * ROWS, (k + 1) * ROWS) for k in range(CLIENTS)]

    def losses(rows: Any) -> torch.Tensor:
        inputs, answer = data.answers(rows, CPU)
        return answer_losses(answer_logits(model, inputs, answer), answer)

    def peft() -> None:
        for rows in parts:
            losses(rows).sum().backward()  # type: ignore[no-untyped-call]
            for p in slot.parameters.values():
                p.grad = None

    stack = LoraStack(model, slot)

    def grouped(cuts: Sequence[Any], groups: int) -> None:
        for rows in cuts:
            own = {n: p.detach().expand(groups, *p.shape).clone() for n, p in slot.parameters.items()}
            for tensor in own.values():
                tensor.requires_grad_()
            with stack.installed():
                stack.tensors = own
                losses(rows).sum().backward()  # type: ignore[no-untyped-call]

    seconds = in_turn(
        {
            "peft": peft,
            "node": lambda: grouped(parts, 1),
            "stack": lambda: grouped([np.concatenate(parts)], CLIENTS),
        },
        repeats,
    )
    found = {f"peft / {kind}": ratio(seconds["peft"], seconds[kind]) for kind in ("node", "stack")}
    for what, value in found.items():
        line(f"width {width}, {CLIENTS} clients x {ROWS} texts: {what}", value, "> 1")
    return {"width": width, **found, "peft_ms": 1000 * float(np.median(seconds["peft"]))}


def main() -> None:
    """Print the ratios and store them."""
    given = options(__doc__, 9)
    store("causal_lora", [measure(width, given.repeats) for width in (96, 256)], given.out)


if __name__ == "__main__":
    main()
