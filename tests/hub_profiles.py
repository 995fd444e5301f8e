"""All that the profiles small and paper fetch: tiny, in the Hub's layouts, at the pinned commits."""

from __future__ import annotations

import io
import json
from functools import lru_cache

import datasets
import hub_contents
import torch
import transformers
from hub_server import HEAD, HubServer
from safetensors.torch import load, save

from fedlora_kit.data.tasks import get_task
from fedlora_kit.models.names import backbone

Files = dict[str, bytes]


def serve(server: HubServer) -> None:
    """Put all repositories on the stand-in; those of no pinned commit at the head of main."""
    for name, files in models().items():
        server.add(name, files, commit=backbone(name).revision)
    for task, files in data_sets().items():
        kind = get_task(task)
        server.add(kind.hub_id, files, commit=kind.revision or HEAD, kind="dataset")


@lru_cache
def models() -> dict[str, Files]:
    """Model -> its files."""
    vit = {f.name: f.read_bytes() for f in (hub_contents.KIT / "image-tiny").iterdir()}
    shards = _in_two(hub_contents.llama())
    return {
        "FacebookAI/roberta-base": hub_contents.roberta() | {"pytorch_model.bin": b"code"},
        "FacebookAI/roberta-large": hub_contents.roberta(1) | {"flax_model.msgpack": b"code"},
        "google-bert/bert-base-uncased": _bert() | {"coreml/model.mlmodel": b"code"},
        "google/vit-base-patch16-224-in21k": vit | {"preprocessor_config.json": b"{}"},
        "TinyLlama/TinyLlama-1.1B-Chat-v1.0": hub_contents.llama() | {"README.md": b"# chat"},
        "huggyllama/llama-7b": shards | {"pytorch_model-00001-of-00002.bin": b"code"},
        "meta-llama/Llama-2-7b-hf": shards | {"USE_POLICY.md": b"policy"},
        "deepseek-ai/deepseek-llm-7b-base": shards,
    }


@lru_cache
def data_sets() -> dict[str, Files]:
    """A task of each repository -> the repository's files."""
    rows = [f"{'good' if n % 2 else 'bad'} text number {n}" for n in range(12)]
    pair = {"question1": rows, "question2": rows, "label": [n % 2 for n in range(12)]}
    mnli = {"premise": rows, "hypothesis": rows, "label": [n % 3 for n in range(12)]}
    glue = {**hub_contents.glue(), "README.md": b"# GLUE\n"}
    for split in ("train", "validation", "test"):
        glue |= {f"qqp/{split}-00000-of-00001.parquet": hub_contents.parquet(pair)}
    for split in ("train", *(f"{s}_{m}" for s in ("validation", "test") for m in ("matched", "mismatched"))):
        glue |= {f"mnli/{split}-00000-of-00001.parquet": hub_contents.parquet(mnli)}
    sums = hub_contents.parquet({"question": rows, "answer": [f"it is\n#### {n}" for n in range(12)]})
    ledgar = hub_contents.parquet({"text": rows, "label": list(range(12))})
    food = {f"data/train-{n:05d}-of-00008.parquet": _photos(2, n) for n in range(8)}
    food |= {f"data/validation-{n:05d}-of-00003.parquet": _photos(2, n) for n in range(3)}
    return {
        "sst2": glue,
        "gsm8k": {
            f"{config}/{split}-00000-of-00001.parquet": sums
            for config in ("main", "socratic")
            for split in ("train", "test")
        },
        "dolly": hub_contents.dolly(),
        "cifar100": hub_contents.cifar100(),
        "cifar100_proxy": hub_contents.image_folder(),
        "food101": food,
        "ledgar": {f"ledgar/{s}-00000-of-00001.parquet": ledgar for s in ("train", "validation", "test")}
        | {"ecthr_a/train-00000-of-00001.parquet": ledgar},
        "domainnet": {f"data/{s}-00000-of-00001.parquet": _photos(6, 0, "domain") for s in ("train", "test")},
    }


def _photos(count: int, first: int, *more: str) -> bytes:
    """A table of images of unequal sides, their labels, and perhaps further columns."""
    shades = [first + n for n in range(count)]
    images = [{"bytes": hub_contents.picture(s, 24 + s, "JPEG"), "path": f"{s}.jpg"} for s in shades]
    columns = {"image": images, "label": shades, **{name: [f"d{n % 2}" for n in shades] for name in more}}
    out = io.BytesIO()
    datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image()).to_parquet(out)
    return out.getvalue()


def _in_two(files: Files) -> Files:
    """The same model with its weights in two files and their index."""
    weights = load(files["model.safetensors"])
    names, shards = sorted(weights), {}
    parts = {f"model-0000{n + 1}-of-00002.safetensors": names[n::2] for n in range(2)}
    for file, part in parts.items():
        shards[file] = save({name: weights[name] for name in part}, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    others = {name: data for name, data in files.items() if name != "model.safetensors"}
    return {**others, **shards, "model.safetensors.index.json": json.dumps(index).encode()}


def _bert() -> Files:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "text", "number"]
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, architectures=["BertModel"],
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = transformers.BertModel(config).state_dict()
    return {
        "config.json": config.to_json_string().encode(),
        "model.safetensors": save(dict(weights), metadata={"format": "pt"}),
        "vocab.txt": "\n".join(words).encode(),
        "tokenizer_config.json": b'{"tokenizer_class": "BertTokenizer", "do_lower_case": true}',
    }
