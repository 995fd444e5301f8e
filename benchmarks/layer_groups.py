"""How much less time a client needs that trains some of the layers: ratios, measured side by side.

    python benchmarks/layer_groups.py

Steps of a ViT of 12 layers with LoRA on query and value, random weights (speed does not depend on them):
all layers train; the highest 9 and 6; 6 evenly spread (the lowest trains too); and 6 layers with the others
taken out of the model (FedRA). On a CPU one thread and process time; on a GPU wall time between
synchronisations, and the peak of allocated memory. The settings take turns, so that a busy machine hits all
alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from transformers import ViTConfig, ViTForImageClassification

from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.methods.allocation import pattern_layers
from fedlora_kit.models.lora import LoraSettings, attach_lora
from fedlora_kit.models.targets import layer_index
from fedlora_kit.training.depth import only_layers

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SMALL = {
    "hidden_size": 192,
    "num_attention_heads": 3,
    "intermediate_size": 768,
    "image_size": 64,
    "patch_size": 8,
}
SHAPE = {} if DEVICE.type == "cuda" else SMALL  # ViT-B/16 on a GPU
BATCH, REPEATS = (64, 20) if DEVICE.type == "cuda" else (16, 9)
SPREAD = frozenset(pattern_layers("uniform", 6, 12))
#: name -> layers that train, layers in the model (None: all)
SETTINGS: dict[str, tuple[frozenset[int], frozenset[int] | None]] = {
    "all 12": (frozenset(range(12)), None),
    "highest 9": (frozenset(range(3, 12)), None),
    "highest 6": (frozenset(range(6, 12)), None),
    "6 spread": (SPREAD, None),
    "6 spread, others absent": (SPREAD, SPREAD),
}


def clock() -> float:
    """Seconds, after the device has finished."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def stepper(name: str) -> Callable[[], None]:
    """A function that takes one step of a setting."""
    trained, present = SETTINGS[name]
    bare = ViTForImageClassification(ViTConfig(num_hidden_layers=12, num_labels=100, **SHAPE))
    model = attach_lora(bare, LoraSettings(rank=16, alpha=16, targets=("q", "v")), seed=0).to(DEVICE).train()
    slot = AdapterSlot(model)
    slot.set_trainable([n for n in slot.names if layer_index(n) in trained])
    optimizer = torch.optim.AdamW([slot.parameters[n] for n in slot.trainable], lr=1e-4)
    side = bare.config.image_size
    images = torch.randn(BATCH, 3, side, side, device=DEVICE)
    labels = torch.randint(100, (BATCH,), device=DEVICE)

    def step() -> None:
        optimizer.zero_grad()
        with only_layers(model, present):
            loss = torch.nn.functional.cross_entropy(model(pixel_values=images).logits, labels)
        loss.backward()
        optimizer.step()

    return step


def main() -> None:
    """Print one line a setting."""
    torch.set_num_threads(1)
    steps = {name: stepper(name) for name in SETTINGS}
    times: dict[str, list[float]] = {name: [] for name in steps}
    peaks: dict[str, int] = {}
    for repeat in range(REPEATS + 1):  # the first is a warm-up
        for name, step in steps.items():
            if DEVICE.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
                held = torch.cuda.memory_allocated()
            start = clock()
            step()
            if repeat:
                times[name].append(clock() - start)
            if DEVICE.type == "cuda":
                peaks[name] = torch.cuda.max_memory_allocated() - held
    print(f"{DEVICE.type}, batch {BATCH}, median of {REPEATS} steps")
    for name in steps:
        ratios = [one / all_ for one, all_ in zip(times[name], times["all 12"], strict=True)]
        memory = f", {peaks[name] / 1e6:.0f} MB for the step" if peaks else ""
        print(f"{name:24s} {statistics.median(ratios):.2f} of a step that trains all{memory}")


if __name__ == "__main__":
    main()
