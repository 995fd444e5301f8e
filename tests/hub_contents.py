"""Tiny repositories in the Hub's real layouts, for `hub_server`: file name -> bytes."""

from __future__ import annotations

import io
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image
from safetensors.torch import save

KIT = Path(__file__).resolve().parent.parent / "data" / "backbones"
PROXY_CLASSES = ("apple", "aquarium_fish", "baby")


def parquet(columns: dict[str, list], labels: dict[str, tuple[str, ...]] | None = None) -> bytes:
    """A table as the Hub holds it; ``labels``: columns of class numbers, with the classes' names."""
    import datasets

    table = datasets.Dataset.from_dict(columns)
    for column, names in (labels or {}).items():
        table = table.cast_column(column, datasets.ClassLabel(names=list(names)))
    out = io.BytesIO()
    table.to_parquet(out)
    return out.getvalue()


@lru_cache
def glue(turned: bool = False) -> dict[str, bytes]:
    """Sst2 and qnli as parquet; ``turned``: another commit, in which the labels are exchanged."""
    rows = [f"{'good' if n % 2 else 'bad'} film number {n}" for n in range(16)]
    labels = [(n + turned) % 2 for n in range(16)]
    sst2 = {"sentence": rows, "label": labels, "idx": list(range(16))}
    qnli = {"question": rows, "sentence": rows, "label": labels, "idx": list(range(16))}
    files, card = {}, ["---", "configs:"]
    for config, columns, names in (
        ("sst2", sst2, ("negative", "positive")),
        ("qnli", qnli, ("entailment", "not_entailment")),
    ):
        card += [f"- config_name: {config}", "  data_files:"]
        for split, size in (("train", 12), ("validation", 4)):
            part = {name: values[:size] for name, values in columns.items()}
            files[f"{config}/{split}-00000-of-00001.parquet"] = parquet(part, {"label": names})
            card += [f"  - split: {split}", f"    path: {config}/{split}-*"]
    return {**files, "README.md": "\n".join([*card, "---", ""]).encode()}


def dolly(n: int = 24) -> dict[str, bytes]:
    """Dolly's one file of JSON lines."""
    rows = [
        {
            "instruction": f"say {i}",
            "context": "",
            "response": f"it is {i}",
            "category": ("open_qa", "closed_qa")[i % 2],
        }
        for i in range(n)
    ]
    return {
        "databricks-dolly-15k.jsonl": "\n".join(map(json.dumps, rows)).encode(),
        "README.md": b"# Dolly\n",
    }


def picture(shade: int, side: int = 32, form: str = "PNG") -> bytes:
    """One image file: a square in shades that begin at ``shade``."""
    values = (np.arange(side * side * 3) // 7 + shade) % 256
    out = io.BytesIO()
    Image.fromarray(values.reshape(side, side, 3).astype(np.uint8)).save(out, form)
    return out.getvalue()


def _images(shades: list[int]) -> list[dict[str, object]]:
    return [{"bytes": picture(shade), "path": f"{shade}.png"} for shade in shades]


def cifar100(n: int = 8) -> dict[str, bytes]:
    """CIFAR-100 as parquet: img, fine_label, coarse_label."""
    import datasets

    from fedlora_kit.data.class_names import CIFAR100

    files = {}
    for split in ("train", "test"):
        fine = [i * 100 // n for i in range(n)]
        table = datasets.Dataset.from_dict(
            {"img": _images(fine), "fine_label": fine, "coarse_label": [0] * n},
            features=datasets.Features(
                {
                    "img": datasets.Image(),
                    "fine_label": datasets.ClassLabel(names=list(CIFAR100)),
                    "coarse_label": datasets.Value("int64"),
                }
            ),
        )
        out = io.BytesIO()
        table.to_parquet(out)
        files[f"cifar100/{split}-00000-of-00001.parquet"] = out.getvalue()
    return {**files, "README.md": b"# CIFAR-100\n"}


def image_folder(classes: tuple[str, ...] = PROXY_CLASSES) -> dict[str, bytes]:
    """An image folder, as TNILab/cifar100_proxydata: ``train/<class>/<name>.jpg`` and nothing else."""
    return {f"train/{name}/1.jpg": picture(40 * n, 40, "JPEG") for n, name in enumerate(classes)}


@lru_cache
def roberta(seed: int = 0) -> dict[str, bytes]:
    """A tiny RoBERTa with random weights and the kit's tokenizer; another seed is another commit."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = transformers.RobertaConfig(
            vocab_size=317, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            max_position_embeddings=50, pad_token_id=1, bos_token_id=0, eos_token_id=2,
        )  # fmt: skip
        model = transformers.RobertaModel(config, add_pooling_layer=False)
    config.architectures = ["RobertaModel"]
    kept = ("tokenizer.json", "tokenizer_config.json")
    return {
        "config.json": config.to_json_string().encode(),
        "model.safetensors": save(dict(model.state_dict()), metadata={"format": "pt"}),
        **{name: (KIT / "text-tiny" / name).read_bytes() for name in kept},
    }


@lru_cache
def llama() -> dict[str, bytes]:
    """The kit's small Llama, whole; for repositories that ask for an agreement."""
    return {file.name: file.read_bytes() for file in (KIT / "causal-tiny").iterdir()}


def only_bin(files: dict[str, bytes]) -> dict[str, bytes]:
    """The same repository with its weights in a .bin file."""
    return {
        ("pytorch_model.bin" if name == "model.safetensors" else name): data for name, data in files.items()
    }
