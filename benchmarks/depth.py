"""Layers below the lowest trained one: no backward work, nothing kept. Time and memory by the lowest layer.

    python benchmarks/depth.py [--repeats 7]

A ViT of 12 layers, LoRA on q and v; the layers from l on train, for l = 0 ... 11, and one step is timed
(one thread, CPU time, all l in turn). Beside it the bytes that autograd keeps for the backward pass (frozen
weights left out). Theory: the forward pass costs the same for every l, the backward pass in proportion to the
layers it passes through, 12 - l, and so does what is kept.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parent))
from pairs import in_turn, options, store

from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.models.lora import LoraSettings, attach_lora
from fedlora_kit.models.targets import layer_index

LAYERS, BATCH = 12, 16


def model() -> torch.nn.Module:
    """A random ViT: 12 layers of width 192, 17 tokens."""
    config = transformers.ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        hidden_size=192,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=768,
        num_labels=10,
    )
    torch.manual_seed(0)
    base = transformers.AutoModelForImageClassification.from_config(config)
    return attach_lora(base, LoraSettings(rank=8, alpha=8, targets=("q", "v")), seed=1).train()


def measure(repeats: int) -> list[dict[str, float]]:
    """One row for each lowest trained layer."""
    net = model()
    slot = AdapterSlot(net)
    frozen = {p.data_ptr() for p in net.parameters()}
    pixels, labels = torch.randn(BATCH, 1, 8, 8), torch.arange(BATCH) % 10

    def loss() -> torch.Tensor:
        return torch.nn.functional.cross_entropy(net(pixel_values=pixels).logits, labels)

    def step(lowest: int) -> None:
        slot.set_trainable([n for n in slot.names if (layer_index(n) or 0) >= lowest])
        optimizer = torch.optim.SGD([p for p in slot.parameters.values() if p.requires_grad], lr=1e-3)
        loss().backward()
        optimizer.step()

    def kept(lowest: int) -> int:
        slot.set_trainable([n for n in slot.names if (layer_index(n) or 0) >= lowest])
        seen: dict[int, int] = {}

        def pack(t: torch.Tensor) -> torch.Tensor:
            storage = t.untyped_storage()
            if t.data_ptr() not in frozen and storage.data_ptr() not in frozen:
                seen[storage.data_ptr()] = storage.nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            loss()  # held until the sizes are known
        return sum(seen.values())

    seconds = in_turn({str(l): (lambda l=l: step(l)) for l in range(LAYERS)}, repeats)  # noqa: E741
    rows = []
    for lowest in range(LAYERS):
        low, middle, high = np.percentile(seconds[str(lowest)], [25, 50, 75])
        rows.append({"lowest": lowest, "seconds": middle, "low": low, "high": high, "kept": kept(lowest)})
    return rows


def figure(rows: list[dict[str, float]], path: Path) -> None:
    """Time and kept bytes against the number of layers that the backward pass goes through."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    passed = np.array([LAYERS - r["lowest"] for r in rows])
    seconds = np.array([r["seconds"] for r in rows])
    slope, base = np.polyfit(passed, seconds, 1)
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.8), layout="constrained")
    spread = [seconds - [r["low"] for r in rows], [r["high"] for r in rows] - seconds]
    left.errorbar(passed, 1000 * seconds, 1000 * np.abs(spread), fmt="o", color="#0072B2", capsize=2, ms=4)
    left.plot(passed, 1000 * (base + slope * passed), color="#555555", lw=1, label="straight line")
    left.set(ylabel="a step (ms of CPU time)", ylim=(0, None))
    left.legend(frameon=False)
    right.plot(passed, [r["kept"] / 2**20 for r in rows], "s", color="#D55E00", ms=4)
    right.set(ylabel="kept for the backward pass (MiB)", ylim=(0, None))
    for axis in (left, right):
        axis.set(xlabel="layers from the lowest trained one up", xticks=range(0, LAYERS + 1, 2))
        axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=160, metadata={"Software": None})


def main() -> None:
    """Measure, store, and draw the figure from what is stored."""
    given = options(__doc__, 7)
    rows = measure(given.repeats)
    passed, seconds = [LAYERS - r["lowest"] for r in rows], [r["seconds"] for r in rows]
    fit = np.corrcoef(passed, seconds)[0, 1] ** 2
    first, last = rows[0], rows[-1]
    print(
        f"all layers {1000 * first['seconds']:.1f} ms, the last alone {1000 * last['seconds']:.1f} ms; "
        f"R^2 of a straight line {fit:.3f}; kept {first['kept'] / 2**20:.2f}, {last['kept'] / 2**20:.2f} MiB"
    )
    store("depth", rows, given.out)
    stored = json.loads((given.out / "depth.json").read_text())["rows"]
    figure(stored, Path(__file__).parent.parent / "docs/images/depth.png")


if __name__ == "__main__":
    main()
