"""A DP-SGD step with hooks against the same step without privacy.

    python benchmarks/dp_step.py [--repeats 15]

One batch of 32 random texts of 8 to 40 tokens through a RoBERTa of 4 layers with LoRA on q, k, v, o: forward,
backward and SGD step, with and without clipping and noise. The physical batches are the same. In turn, on one
thread, by CPU time. The bar is 1.12.
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
from fedlora_kit.training.objective import example_losses


def measure(width: int, name: str, repeats: int, steps: int = 3) -> dict[str, object]:
    """Paired ratios for one width and method."""
    data = text(32, seed=0)
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

    seconds: dict[str, list[float]] = {"plain": [], "private": []}
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
        if repeat:
            seconds["private"].append(with_privacy)
            seconds["plain"].append(without)
    found = ratio(seconds["private"], seconds["plain"])
    line(f"width {width}, {name}: private / plain", found, "<= 1.12")
    return {
        "width": width,
        "method": name,
        **found,
        "plain_ms": 1000 * float(np.median(seconds["plain"])) / steps,
    }


def main() -> None:
    """Print the ratios and store them."""
    given = options(__doc__, 15)
    rows = [measure(width, name, given.repeats) for width in (128, 256) for name in ("lora", "ffa-lora")]
    store("dp_step", rows, given.out)


if __name__ == "__main__":
    main()
