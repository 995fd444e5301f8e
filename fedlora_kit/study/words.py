"""What internal names are called wherever people read them: columns, methods, splits, tasks.

Tables, figures, verdicts, the report and LaTeX say the words; CSV files and JSON keep the names, which the
package reads back. A name that is not known here loses its underscores and is otherwise shown as it is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fedlora_kit import looks
from fedlora_kit.methods import METHODS
from fedlora_kit.study.known_methods import look

if TYPE_CHECKING:
    import pandas as pd

SPLITS = {
    "iid": "IID",
    "mild": "mildly unequal",
    "severe": "severely unequal",
    "pat_20": "Non-IID 20/1.0",
    "pat_10": "Non-IID 10/1.0",
    "cat_1": "1 category a client",
    "cat_2": "2 categories a client",
}
"""Who holds which labels."""

PROFILES = {
    "smoke": "toys: the kit's own small models, made-up text and digits",
    "laptop": "real small pre-trained models and real data, on a CPU",
    "small": "real data and models, one GPU",
    "paper": "the paper's own size, on GPUs",
}
"""What each profile is run on."""

_TASKS = {
    "sst2": "SST-2",
    "qnli": "QNLI",
    "qqp": "QQP",
    "mnli": "MNLI",
    "mnli-matched": "MNLI, matched",
    "mnli-mismatched": "MNLI, mismatched",
    "entailment-matched": "entailment, matched",
    "entailment-mismatched": "entailment, mismatched",
    "cifar100": "CIFAR-100",
    "ledgar": "LEDGAR",
    "food101": "Food-101",
    "domainnet": "DomainNet",
    "gsm8k": "GSM8K",
    "dolly": "Dolly",
    "natural_instructions": "Natural Instructions",
}
_COLUMNS = {
    "A_D": "direction of A",
    "A_M": "magnitude of A",
    "B_D": "direction of B",
    "B_M": "magnitude of B",
    "alpha": "α",
    "clip": "clipping norm C",
    "delta": "δ",
    "epsilon": "ε spent",
    "eps": "ε",
    "key": "run",
    "lr": "learning rate",
    "macro_f1": "macro F1",
    "macro_f1_at_best": "macro F1 in that round",
    "memory_gb": "memory, GB",
    "micro_f1": "micro F1",
    "none": "no DP",
    "rho": "ρ",
    "roc": "resources",
    "rouge_l": "ROUGE-L",
    "sample_rate": "sampling rate q",
    "sd": "standard deviation",
    "sent_bytes": "bytes sent",
    "sigma": "noise multiplier σ",
    "std": "standard deviation",
    "store_gb": "store, GB",
    "target_epsilon": "ε asked for",
    "traffic_gb": "traffic, GB",
}
_VALUES = {
    **_TASKS,
    "fim": "FIM-HLA",
    "gd": "GD-HLA",
    "kaiming": "Kaiming",
    "rdp": "RDP",
    "rgd": "RGD-HLA",
    "svd": "SVD",
}
_PLAIN = {"method", "split", "task"}
"""Columns whose values say by themselves what they are."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)+")
_WORD = re.compile(r"\w+")
_PAIR = re.compile(r"\b([A-Za-z]\w*)=([^\s,()|;]+)")


def is_method(name: str) -> bool:
    """Whether a method has a name in words."""
    return name in looks.known() or name in METHODS


def value(column: str, text: str) -> str:
    """A cell in words.

    >>> value("split", "pat_20"), value("method", "hetlora"), value("when", "every_round"), value("x", "6.5")
    ('Non-IID 20/1.0', 'HETLoRA', 'every round', '6.5')
    """
    column = column.strip().lower()
    if column in ("method", "noise"):
        name, comma, rest = text.partition(", ")
        return look(name).title + comma + rest
    if column == "eps" and text == "none":
        return "no DP"
    if text in _VALUES or (text in SPLITS and (column == "split" or "_" in text)):
        return _VALUES.get(text) or SPLITS[text]
    return text.replace("_", " ") if _NAME.fullmatch(text) else text


def heading(name: str) -> str:
    """A column's name in words; a table's column may also be called after a method, split or task.

    >>> [heading(name) for name in ("eps", "accuracy_best", "local_loss", "pat_10", "ffa-lora")]
    ['ε', 'best accuracy', 'local loss', 'Non-IID 10/1.0', 'FFA-LoRA']
    """
    if name in _COLUMNS:
        return _COLUMNS[name]
    if is_method(name):
        return look(name).title
    if name in SPLITS or name in _VALUES:
        return SPLITS.get(name) or _VALUES[name]
    if " " in name:
        return _WORD.sub(
            lambda word: heading(word[0]) if word[0] in SPLITS or _NAME.fullmatch(word[0]) else word[0], name
        )
    for ending, said in (("_best", "best {}"), ("_last10", "{}, mean of the last 10 rounds")):
        if name.endswith(ending):
            return said.format(heading(name.removesuffix(ending)))
    if name.startswith("local_"):
        return f"local {heading(name.removeprefix('local_'))}"
    return name.replace("_", " ") if _NAME.fullmatch(name) else name


def place(column: str, text: str) -> str:
    """A coordinate in words.

    >>> place("method", "lora"), place("eps", "6"), place("eps", "none"), place("local_steps", "4")
    ('LoRA', 'ε 6', 'no DP', 'local steps 4')
    """
    said = "/".join(value(column, one) for one in text.split("/"))
    plain = column in _PLAIN or (column == "eps" and text == "none")
    return said if plain else f"{heading(column)} {said}"


def sentence(text: str) -> str:
    """A verdict's reason, or the name of a cell, with its coordinates and columns in words.

    >>> sentence("accuracy_best: (method=lora, split=pat_10) − (method=ffa-lora, split=pat_10) = +1.2")
    'best accuracy: (LoRA, Non-IID 10/1.0) − (FFA-LoRA, Non-IID 10/1.0) = +1.2'
    """
    said = _PAIR.sub(lambda pair: place(pair[1], pair[2]), text)
    return _NAME.sub(lambda name: heading(name[0]), said)


def frame(df: pd.DataFrame) -> pd.DataFrame:
    """A table as people read it: the same with headings and texts in words."""
    import numpy as np

    shown = df.copy()
    for i, name in enumerate(df.columns):
        texts = df.iloc[:, i].astype(object)
        if any(isinstance(text, str) for text in texts):
            said = [value(str(name), text) if isinstance(text, str) else text for text in texts]
            shown.isetitem(i, np.array(said, dtype=object))
    shown.columns = shown.columns.map(lambda name: heading(name) if isinstance(name, str) else name)
    return shown
