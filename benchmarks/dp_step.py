"""A DP-SGD step against the same step without privacy: with Opacus' hooks, and with rows.

    python benchmarks/dp_step.py [--repeats 15]

One batch of 32 random texts, of 8 to 40 tokens or all of 128, through a RoBERTa of 4 layers with LoRA on
q, k, v, o: forward, backward and SGD step, with and without clipping and noise. In turn, on one thread, by
CPU time. Bar: 1.12.

* plain: PEFT's model, no privacy.
* hooks: `privacy.dpsgd`, for models that rows cannot do (dropout of LoRA, weights in bfloat16).
* rows: a stack of this one client (`training.stacked`), what the round loop takes where it can; the
  set-up of a round is in its time, and not in that of the others.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from federated_overhead import model, text
from pairs import CPU, line, options, ratio, store, timed

from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.data.batches import physical_batches
from fedlora_kit.methods import method
from fedlora_kit.privacy.dpsgd import PerExampleGradients, private_optimizer, private_step
from fedlora_kit.randomness import Streams
from fedlora_kit.training.local import Noise
from fedlora_kit.training.lora_stack import LoraStack
from fedlora_kit.training.objective import example_losses
from fedlora_kit.training.settings import LocalSettings
from fedlora_kit.training.stacked import Member, train_stack


def measure(width: int, name: str, tokens: int | None, repeats: int, steps: int = 3) -> dict[str, object]:
    """Paired ratios for one width, method and length of text (None: 8 to 40 tokens)."""
    data = text(32, seed=0) if tokens is None else text(32, seed=0, shortest=tokens, longest=tokens)
    net = model(width, 4).train()
    slot = AdapterSlot(net)
    slot.set_trainable([n for n in slot.names if method(name).trains(n, 0, 0)])
    parameters = [slot.parameters[n] for n in slot.trainable]
    pieces = physical_batches(data.lengths, np.arange(32), 4096)

    def losses(rows: object) -> torch.Tensor:
        inputs, labels = data.batch(rows, CPU)  # type: ignore[arg-type]
        return example_losses(net(**inputs).logits, labels)

    plain_optimizer = torch.optim.SGD(parameters, lr=1e-3)

    def plain() -> None:
        for _ in range(steps):
            plain_optimizer.zero_grad(set_to_none=True)
            for piece in pieces:
                (losses(piece).sum() / 32).backward()
            plain_optimizer.step()

    names = slot.trainable
    member = Member(0, data, slot.read(), names, None, Noise(1.0, 1.0, 1.0))  # q = 1: all examples, always
    stack = LoraStack(net, slot)
    settings = LocalSettings(lr=1e-3, steps=steps, batch_size=32)

    def rows() -> None:
        slot.set_trainable([])
        train_stack(net, stack, [member], settings, Streams(0), round_index=0, device=CPU)
        slot.set_trainable(names)

    seconds: dict[str, list[float]] = {"plain": [], "hooks": [], "rows": []}
    for repeat in range(repeats + 1):
        with PerExampleGradients(net) as hooks:
            optimizer = private_optimizer(
                torch.optim.SGD(parameters, lr=1e-3),
                sigma=1.0,
                clip=1.0,
                expected_batch_size=32,
                generator=torch.Generator().manual_seed(0),
            )

            def private(hooks: PerExampleGradients = hooks, optimizer: object = optimizer) -> None:
                for _ in range(steps):
                    private_step(hooks, optimizer, pieces, losses)

            with_privacy = timed(private)
        without = timed(plain)
        by_rows = timed(rows)
        if repeat:
            seconds["hooks"].append(with_privacy)
            seconds["plain"].append(without)
            seconds["rows"].append(by_rows)
    found = {kind: ratio(seconds[kind], seconds["plain"]) for kind in ("hooks", "rows")}
    for kind, value in found.items():
        line(f"width {width}, {tokens or '8 to 40'} tokens, {name}: {kind} / plain", value, "<= 1.12")
    return {
        "width": width,
        "tokens": tokens or "8 to 40",
        "method": name,
        **found,
        "plain_ms": 1000 * float(np.median(seconds["plain"])) / steps,
    }


def main() -> None:
    """Print the ratios and store them."""
    given = options(__doc__, 15)
    rows = [
        measure(width, name, tokens, given.repeats)
        for width, tokens in ((128, None), (256, None), (256, 128))
        for name in ("lora", "ffa-lora")
        if f"{width} {tokens} {name}".startswith(given.only)
    ]
    store("dp_step", rows, given.out)


if __name__ == "__main__":
    main()
