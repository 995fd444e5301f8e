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

from fedlora_kit.devices import computing_on
from fedlora_kit.errors import UnknownName
from fedlora_kit.pretraining.causal import build_causal_tiny
from fedlora_kit.pretraining.common import Progress
from fedlora_kit.pretraining.image import build_image_tiny
from fedlora_kit.pretraining.instruct import build_instruct_tiny
from fedlora_kit.pretraining.text import build_text_tiny

_BUILDERS: dict[str, Callable[[Path, int, Progress], dict[str, Any]]] = {
    "kit/text-tiny": build_text_tiny,
    "kit/image-tiny": build_image_tiny,
    "kit/causal-tiny": build_causal_tiny,
    "kit/instruct-tiny": build_instruct_tiny,
}
NAMES = tuple(_BUILDERS)


def build_backbone(name: str, out: Path, seed: int = 0, progress: Progress = print) -> dict[str, Any]:
    """Pre-train one of the kit's backbones from nothing, on one thread.

    Args:
        name: one of `NAMES`.
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
            record = _BUILDERS[name](out, seed, progress)
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


def file_digest(file: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _note(file: Path, name: str, record: dict[str, Any]) -> None:
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    known[name] = record
    file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
