"""FedLoRA-Optimizer (Zhao et al., arXiv 2510.11274): one file an item."""

from __future__ import annotations

from fedlora_kit.study.item import Item, Paper

_OWN = "the kit's own"

PAPER = Paper("fedlora-optimizer", "FedLoRA-Optimizer", "arXiv 2510.11274 (2025)")

ITEMS: tuple[Item, ...] = (
    Item(
        "fedlora-optimizer/preliminary",
        "figure",
        "Variation of direction and magnitude of A and B",
        "preliminary experiment",
        "two ratios SECOND; definitions UNKNOWN",
    ),
    Item(
        "fedlora-optimizer/method",
        "figure",
        "Decomposition and pipeline",
        "method",
        "roles of A and B SEEN; decomposition and pipeline SECOND; details UNKNOWN",
    ),
    Item(
        "fedlora-optimizer/global",
        "table",
        "One global adapter: two data sets × two models × methods",
        "UNKNOWN",
        "average gain SEEN; metric, baseline and cells UNKNOWN",
        stem="global_and_local",
        parameters={"item": "fedlora-optimizer/global"},
        module="tables",
    ),
    Item(
        "fedlora-optimizer/local",
        "table",
        "Personalised adapters: two data sets × two models × methods",
        "UNKNOWN",
        "average gain SEEN; metric, baseline and cells UNKNOWN",
        stem="global_and_local",
        parameters={"item": "fedlora-optimizer/local"},
        module="tables",
    ),
    Item(
        "fedlora-optimizer/ablation",
        "table",
        "Which component each optimiser trains; pipeline against joint training",
        "UNKNOWN",
        "existence SECOND; numbers UNKNOWN",
    ),
    Item(
        "fedlora-optimizer/open_choices",
        "table",
        "How far each undocumented choice moves the result",
        "",
        f"{_OWN}: the choices are those that the sources leave open",
    ),
)
