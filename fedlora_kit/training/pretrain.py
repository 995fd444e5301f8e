"""The kit's own small backbones: pre-training them, and writing them as ordinary Hugging Face folders.

``data/backbones/`` holds the built ones; ``DIGESTS.json`` beside them says what each file must hash to, which
command rebuilds it, and how the building went. With one thread and one version of torch a build is repeatable
bit by bit; another processor may round differently.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedlora_kit.devices import computing_on
from fedlora_kit.errors import FedloraError, UnknownName

Progress = Callable[[str], None]

NAMES = (
    "kit/text-tiny",
    "kit/image-tiny",
    "kit/text-mirror",
    "kit/image-mirror",
    "kit/causal-tiny",
    "kit/causal-mirror",
    "kit/instruct-tiny",
    "kit/instruct-mirror",
)


def build_backbone(name: str, out: Path, seed: int = 0, progress: Progress = print) -> dict[str, Any]:
    """Pre-train one of the kit's backbones from nothing, on one thread.

    Args:
        name: one of `NAMES`; ``kit/text-mirror`` needs GLUE's SST-2 and QNLI, ``kit/image-mirror`` CIFAR-100,
            ``kit/causal-mirror`` GSM8K, from the mirror or the Hub; ``kit/instruct-mirror`` Dolly and Natural
            Instructions.
        out: the folder to write; it is made if need be, and its files are replaced.
        seed: seed of the corpus, the initial weights and the batches.
        progress: called with one line of text now and then.

    Returns:
        The record of the building: steps, seconds, the gate's figures, sha256 of the weights.

    Raises:
        UnknownName: for a name that the kit does not build.
        FedloraError: if the model learned nothing (the gate); nothing is written then.
    """
    if name not in NAMES:
        raise UnknownName("backbone to build", name, NAMES)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    started = time.perf_counter()
    try:
        with torch.random.fork_rng(devices=[]), computing_on(torch.device("cpu")):
            torch.manual_seed(seed)
            record = _builder(name)(out, seed, progress)
    finally:
        torch.set_num_threads(threads)
    record = {
        "sha256": file_digest(out / "model.safetensors"),
        "command": f"fedlora backbones build {name}",
        "seed": seed,
        **record,
        "seconds": round(time.perf_counter() - started),
        "torch": torch.__version__.split("+")[0],
    }
    _note(out.parent / "DIGESTS.json", name, record)
    return record


def _builder(name: str) -> Callable[[Path, int, Progress], dict[str, Any]]:
    if name == "kit/text-tiny":
        from fedlora_kit.training.pretrain_text import build_text_tiny

        return build_text_tiny
    if name == "kit/image-tiny":
        from fedlora_kit.training.pretrain_image import build_image_tiny

        return build_image_tiny
    if name == "kit/image-mirror":
        from fedlora_kit.training.pretrain_image_mirror import build_image_mirror

        return build_image_mirror
    if name == "kit/text-mirror":
        from fedlora_kit.training.pretrain_lines import build_text_mirror

        return build_text_mirror
    if name.startswith("kit/instruct-"):
        from fedlora_kit.training.pretrain_instruct import build_instruct_mirror, build_instruct_tiny

        return build_instruct_tiny if name == "kit/instruct-tiny" else build_instruct_mirror
    from fedlora_kit.training.pretrain_causal import build_causal_mirror, build_causal_tiny

    return build_causal_tiny if name == "kit/causal-tiny" else build_causal_mirror


def save_backbone(model: nn.Module, config: Any, out: Path) -> None:
    """Write weights (float16 in the file) and configuration (dtype float32: they load as float32)."""
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for key, value in model.state_dict().items():
        half = value.detach().to(torch.float16).contiguous()
        if not torch.isfinite(half).all():
            raise FedloraError(
                f"{key} does not fit into float16", "the pre-training diverged: build it again"
            )
        tensors[key] = half.clone()
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    config.dtype = "float32"
    text = json.dumps(json.loads(config.to_json_string(use_diff=False)), indent=1, sort_keys=True)
    (out / "config.json").write_text(text + "\n", encoding="utf-8")


def cool_down(step: int, steps: int, *, warm_up: int = 100, decay: float = 0.4) -> float:
    """Factor of the learning rate: linear warm-up, flat, linear decay to 2 % over the last ``decay``."""
    left = (steps - step) / (steps * decay)
    return min(1.0, (step + 1) / warm_up) * max(0.02, min(1.0, left))


def file_digest(file: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _note(file: Path, name: str, record: dict[str, Any]) -> None:
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    known[name] = record
    file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
