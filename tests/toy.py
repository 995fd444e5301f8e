"""A toy world for tests of whole runs: a tiny backbone in a mirror and a task handed over by the caller."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import tiny
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from fedlora_kit.data.task import Examples, Task
from fedlora_kit.data.tasks import register_task

WORDS = [f"w{i}" for i in range(30)]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
BACKBONE = "FacebookAI/roberta-base"


def build_mirror(hub: Path) -> None:
    """A mirror whose roberta-base is tiny and random."""
    folder = hub / "models" / BACKBONE
    tiny.backbone("roberta", seed=5).save_pretrained(folder)
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        cls_token="<s>",
        sep_token="</s>",
    ).save_pretrained(folder)


def examples(split: str) -> Examples:
    """Sentences whose first word gives the class."""
    rng = np.random.default_rng({"train": 0, "validation": 1}[split])
    n = {"train": 60, "validation": 30}[split]
    rows = rng.integers(0, len(WORDS), size=(n, 6))
    labels = rows[:, 0] % 2
    return Examples(([" ".join(WORDS[i] for i in row) for row in rows],), labels.astype(np.int64))


def enter(hub: Path) -> None:
    """Make the toy world this process's."""
    os.environ["FEDLORA_HUB"] = str(hub)
    register_task(
        Task("toy", "text", ("even", "odd"), ("sentence",), loader=examples, max_length=12), replace=True
    )


def description(**changes: object) -> dict:
    """A run that takes well under a second."""
    base = {
        "model": {"backbone": BACKBONE, "lora": {"rank": 2, "alpha": 4}},
        "data": {"task": "toy", "holdout": 10},
        "split": {"partitioner": "iid", "clients": 3},
        "method": {"name": "lora"},
        "local": {"lr": 0.2, "steps": 2, "batch_size": 4},
        "rounds": {"rounds": 4},
    }
    return {**base, **changes}
