"""Fed-HeLLo's ablation: which examples the Fisher scores come from, or whether to train on them instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedlora_kit.papers.fed_hello import grid, table2
from fedlora_kit.papers.fed_hello.grid import PROFILES as PROFILES
from fedlora_kit.papers.fed_hello.grid import Setting
from fedlora_kit.study.claims import Claim, mean_difference
from fedlora_kit.study.grid import Cell
from fedlora_kit.study.overrides import chosen
from fedlora_kit.study.planned import Runs

ROC, SPLIT, BEST = "1:1:1", "pat_10", "accuracy_best"
TRAINED = "trained_on"
#: source -> what it is, in words
SOURCES: dict[str, str] = {
    "random": "drawn at random from the training examples and set aside: Fed-HeLLo as in Table II",
    "balanced": "the same, equally many of each class",
    "external": "a set that no client holds; the clients keep all of theirs",
    TRAINED: "none: the same examples stay with the clients, and layers are drawn by RGD-HLA alone",
}
#: images of CIFAR-100's external set: at most all of them are taken
EXTERNAL_IMAGES = 100
OWN = (
    "The four sources are variants in the released code (one of them commented out there); that the paper "
    "compares them is inferred, and its numbers, split and data sets are not known. The split here is "
    "Non-IID 10/1.0, the hardest of Table II.",
    "Random and balanced examples are taken out of the clients' parts, so that those runs train on fewer; "
    "with the external set, and without scores, clients keep all.",
    "The released code's variant for training on them adds the external examples to the training set; here "
    "it is the training examples that would have been set aside. It is RGD-HLA with the bottleneck, the same "
    "runs as in the strategies' table.",
    "The claims are expectations of ours, set down before the runs.",
)
_CIFAR = (
    "The external set is TNILab/cifar100_proxydata at a pinned revision: 100 photographs, one a class, whose "
    "columns are those that the released code reads. Its classes are matched with CIFAR-100's by their "
    "names. As there, photographs are resized to a square without cutting (there to 224 pixels at once, here "
    "by way of 256). Half of the classes have half of the photographs."
)
_DIGITS = (
    "Smoke: the external set is drawn from the 700 images on which the backbone was pre-trained, turned "
    "as in the task; no client holds them and nothing scores them, but unlike photographs from the web they "
    "come from the same writers."
)


def setting(profile: str, split: str | None = None, **overrides: object) -> Setting:
    """The setting of a profile on one split.

    Raises:
        UnknownName, BadValue: see `fed_hello.grid.setting`.
    """
    item = "fed-hello/proxy_data"
    return grid.setting(item, PROFILES, profile, splits=[SPLIT if split is None else split], **overrides)


def chosen_sources(sources: Sequence[str] | None) -> list[str]:
    """The sources to compare; all if none is named.

    Raises:
        UnknownName: no such source.
        BadValue: none, or one twice.
    """
    return chosen("source of proxy examples", "sources", sources, SOURCES)


def cells(s: Setting, sources: Sequence[str]) -> list[Cell]:
    """Every run of sources × seeds on the setting's split; two are other items' runs."""
    made = []
    for split in s.splits:
        for source in sources:
            coords = {"split": split, "source": source}
            method = "rgd-hla" if source == TRAINED else "fed-hello"
            more: dict[str, object] = (
                {"proxy": source} if source in ("balanced", "external") else {"pattern": "bottleneck"}
            )
            if source == "external" and s.task == "cifar100":
                more["proxy_examples"] = min(s.proxy_examples, EXTERNAL_IMAGES)
            made += [grid.cell(s, split, ROC, method, seed, coords, **more) for seed in s.seeds]
    return made


def claims(sources: Sequence[str]) -> list[Claim]:
    """That scoring layers is worth the examples, whichever they are; over `study.grid.results_frame`."""
    return [
        Claim(
            f"{source}_above_{TRAINED}",
            f"Fisher scores from {source} examples beat training on the examples instead (best accuracy)",
            "none: an expectation of ours, the paper's reason for proxy examples",
            "the variants DERIVED from the released code; direction and numbers UNKNOWN",
            lambda r, v=source: mean_difference(  # type: ignore[misc]
                r,
                BEST,
                better={"source": v},
                worse={"source": TRAINED},
                within=["task", "split"],
            ),
        )
        for source in sources
        if source != TRAINED
    ]


def deviations(s: Setting) -> list[str]:
    """As Table II's, and what is special about the proxy examples."""
    return table2.deviations(s, [*OWN, _DIGITS if s.task == "digits" else _CIFAR])


def runs(profile: str, sources: Sequence[str] | None = None, **parameters: Any) -> Runs:
    """The runs of `cells`."""
    return Runs(tuple(cells(setting(profile, **parameters), chosen_sources(sources))))
