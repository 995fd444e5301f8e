"""What preparing a batch of images costs beside the training step on that batch.

    python benchmarks/image_batches.py [--repeats 7] [--out benchmarks/results] [--device cuda] [--only food]

Side by side on the very same batches, in turn:

* prepare: from stored bytes (uint8, a memory-mapped file) to the backbone's input, with random views;
* step: forward, backward and SGD step of LoRA on q, k, v, o.

Random images and random weights: neither changes the time. Reported is the median of the paired ratios with
their quartiles, by wall time on one thread. The bar is 0.10.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import transformers

from fedlora_kit.data.encoded import EncodedData, encode_images, for_training
from fedlora_kit.data.image_ops import Augment, ImageInput
from fedlora_kit.data.task import Examples
from fedlora_kit.models.first_token import read_first_token
from fedlora_kit.models.lora import LoraSettings, attach_lora


@dataclass(frozen=True)
class Case:
    """Stored side, backbone, batch and views of one comparison."""

    name: str
    stored: int
    size: int
    patch: int
    width: int
    layers: int
    heads: int
    batch: int
    augment: Augment


CASES = (
    Case("cifar100, a small ViT", 32, 32, 4, 96, 4, 4, 32, "crop_flip"),
    Case("cifar100, ViT-B/16", 32, 224, 16, 768, 12, 12, 2, "crop_flip"),
    Case("food101, ViT-B/16", 256, 224, 16, 768, 12, 12, 2, "zoom_flip"),
)


def images(case: Case, folder: Path, n: int = 64) -> EncodedData:
    """n random images in a memory-mapped file, as `data.images` stores them, seen as training sees them."""
    rng = np.random.default_rng(0)
    file = folder / "images.npy"
    np.save(file, rng.integers(0, 256, (n, 3, case.stored, case.stored), dtype=np.uint8))
    examples = Examples((np.load(file, mmap_mode="r"),), rng.integers(0, 10, n))
    tokens = (case.size // case.patch) ** 2 + 1
    data = encode_images(examples, ImageInput(case.size, tokens=tokens))
    return for_training(replace(data, augment=case.augment), rng)


def model(case: Case) -> torch.nn.Module:
    """A random ViT classifier with LoRA on q, k, v, o."""
    config = transformers.ViTConfig(
        image_size=case.size,
        patch_size=case.patch,
        hidden_size=case.width,
        num_hidden_layers=case.layers,
        num_attention_heads=case.heads,
        intermediate_size=(4 if case.width == 768 else 2) * case.width,
        num_labels=10,
    )
    torch.manual_seed(0)
    base = transformers.AutoModelForImageClassification.from_config(config)
    return attach_lora(base, LoraSettings(rank=8, alpha=8), seed=1).train()


def measure(case: Case, repeats: int, device: torch.device) -> dict[str, object]:
    """Paired ratios prepare / step."""
    net = model(case).to(device)
    read_first_token(net)  # as runs do
    parameters = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-3)
    rng = np.random.default_rng(1)
    batch = case.batch if device.type == "cpu" else 64
    ratios, prepares, steps = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        data = images(case, Path(folder), max(64, batch))

        def step(inputs: dict[str, torch.Tensor], labels: torch.Tensor) -> None:
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(net(**inputs).logits, labels).backward()
            optimizer.step()

        for repeat in range(repeats + 1):
            rows = rng.choice(len(data), batch, replace=False)
            (inputs, labels), prepare_seconds = timed(lambda r=rows: data.batch(r, device), device)
            _, step_seconds = timed(lambda i=inputs, y=labels: step(i, y), device)
            if repeat:  # the first pair warms up
                ratios.append(prepare_seconds / step_seconds)
                prepares.append(prepare_seconds)
                steps.append(step_seconds)
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "case": case.name,
        "batch": batch,
        "augment": case.augment,
        "ratio": middle,
        "quartiles": [low, high],
        "prepare_ms": 1000 * statistics.median(prepares),
        "step_ms": 1000 * statistics.median(steps),
    }


def timed(work: Callable[[], object], device: torch.device) -> tuple[object, float]:
    """What ``work`` returns, and the seconds it took on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    clock = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return result, time.perf_counter() - clock


def main() -> None:
    """Print the ratios, and store them where --out says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="", help="cases whose name begins so")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = [c for c in CASES if c.name.startswith(options.only)]
    rows = [measure(case, options.repeats, torch.device(options.device)) for case in cases]
    for row in rows:
        low, high = row["quartiles"]  # type: ignore[misc]
        print(
            f"{row['case']}: prepare / step = {row['ratio']:.4f} [{low:.4f}, {high:.4f}]  "
            f"(batch {row['batch']}, {row['augment']}: {row['prepare_ms']:.1f} of {row['step_ms']:.0f} ms)"
        )
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        record = {
            "benchmark": "image_batches",
            "rows": rows,
            "device": options.device,
            "torch": torch.__version__,
            "machine": platform.machine(),
        }
        (options.out / "image_batches.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
