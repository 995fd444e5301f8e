"""RoLoRA (Chen, Ju, Dalal, Zhu, Khisti, arXiv 2409.02346): its method, and one file an item."""

from __future__ import annotations

from fedlora_kit.study.item import Item, Paper

from . import method as method  # registers it

PAPER = Paper(
    "rolora",
    "Robust Federated Finetuning of Foundation Models via Alternating Minimization of LoRA",
    "arXiv 2409.02346",
)

ITEMS = (
    Item(
        "rolora/table1",
        "table",
        "LoRA, FFA-LoRA and RoLoRA as the clients become more",
        "UNKNOWN",
        "eight numbers SECOND, none of RoLoRA's own; settings UNKNOWN but for clients and rank",
    ),
)
