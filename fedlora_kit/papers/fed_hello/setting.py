"""What Fed-HeLLo's experiments are run with: methods, splits, resources, and a setting a profile."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fedlora_kit.errors import BadValue
from fedlora_kit.methods.resources import HETLORA_111, ROC_111, ROC_631, Resources
from fedlora_kit.papers import laptop
from fedlora_kit.papers.fed_hello.modes import DESCRIBED

#: the methods that are compared; "lora" with full resources for everybody is the upper reference
METHODS = ("straggler", "exclusive", "fedra", "hetlora", "flexlora", "fed-hello", "lora")
#: methods beyond the paper's comparison, to be asked for by name
FURTHER_METHODS = ("flora",)
#: the official logs' names; the paper writes IID, Non-IID 20/1.0 and Non-IID 10/1.0
SPLITS = ("iid", "pat_20", "pat_10")
#: resource configuration -> what its groups can train, by layers and by ranks
RESOURCES: dict[str, dict[str, Resources]] = {
    "1:1:1": {"layers": ROC_111, "ranks": HETLORA_111},
    "6:3:1": {"layers": ROC_631, "ranks": HETLORA_111.model_copy(update={"groups": ROC_631.groups})},
}
#: methods that score layers: they need proxy examples and a schedule
SCORING_METHODS = ("fed-hello", "fim-hla")
REFRESH = 0.1
"""Fed-HeLLo's first Fisher scores, and each refresh, come after this share of the rounds: 50 of 500."""


@dataclass(frozen=True)
class Setting:
    """Everything an experiment needs, for one profile.

    Attributes:
        clients, cohort: clients there are, and those drawn a round.
        classes: split -> classes a client holds (none for "iid").
        min_per_holder: examples of a class that each of its holders gets at least ("pathological" only).
        partitioner: of all splits but "iid": "pathological" (a class is cut by Dirichlet(1)) or
            "pathological_domains" (by domains).
        batch_size: examples of the one step a round; at least the largest client, so that it takes all.
        proxy_examples: training examples set aside for Fisher scores (methods that score layers).
        seeds: reported seeds.
        methods: `METHODS`, or any other that is registered; splits: names in `SPLITS`.
        lr, lr_decay: AdamW's rate is lr · lr_decay^t in round t, one for all methods.
        train_limit, eval_limit: at most so many examples; None for all.
        max_tokens: image patches or tokens a physical batch.
        image_size, max_length: see `experiments.spec.DataSpec`.
        mode: "as_described" or "as_released" (see `fed_hello.modes`).
    """

    task: str
    backbone: str
    clients: int
    cohort: int
    rounds: int
    seeds: tuple[int, ...]
    classes: Mapping[str, int]
    min_per_holder: int
    batch_size: int
    proxy_examples: int
    partitioner: str = "pathological"
    methods: tuple[str, ...] = METHODS
    splits: tuple[str, ...] = SPLITS
    lr: float = 0.01
    lr_decay: float = 0.99
    weight_decay: float = 0.01
    rank: int = 16
    alpha: float = 16.0
    dropout: float = 0.1
    augment: str = "none"
    train_limit: int | None = None
    eval_limit: int | None = None
    eval_every: int = 1
    max_tokens: int = 4096
    precision: str = "fp32"
    image_size: int | None = None
    max_length: int | None = None
    mode: str = DESCRIBED

    def __post_init__(self) -> None:
        if self.cohort > self.clients:
            raise BadValue(
                f"cohort={self.cohort} of {self.clients} clients", "give a cohort of at most all clients"
            )

    @property
    def refresh(self) -> int:
        """First round with Fisher scores, and rounds between refreshes: a tenth of all, at least 1."""
        return max(1, math.floor(REFRESH * self.rounds + 0.5))


PROFILES: dict[str, Setting] = {
    "paper": Setting(
        task="cifar100",
        backbone="google/vit-base-patch16-224-in21k",
        clients=100,
        cohort=10,
        rounds=500,
        seeds=(0, 1, 2),
        classes={"pat_20": 20, "pat_10": 10},
        min_per_holder=10,
        batch_size=2048,
        proxy_examples=100,
        augment="crop_flip",
        max_tokens=50_000,
        precision="bf16",
    ),
    "small": Setting(
        task="cifar100",
        backbone="google/vit-base-patch16-224-in21k",
        clients=20,
        cohort=5,
        rounds=40,
        seeds=(0, 1, 2),
        classes={"pat_20": 20, "pat_10": 10},
        min_per_holder=5,
        batch_size=2048,
        proxy_examples=100,
        augment="crop_flip",
        train_limit=6000,
        eval_limit=2000,
        eval_every=2,
        max_tokens=50_000,
        precision="bf16",
    ),
    "laptop": Setting(
        task="cifar100",
        backbone=laptop.IMAGE,
        clients=40,
        cohort=4,
        rounds=40,
        seeds=laptop.SEEDS,
        classes={"pat_20": 20, "pat_10": 10},
        min_per_holder=0,
        batch_size=2048,
        proxy_examples=50,
        augment="crop_flip",
        train_limit=1000,
        eval_limit=500,
        eval_every=10,
        image_size=56,
    ),
    "smoke": Setting(
        task="digits",
        backbone="kit/image-tiny",
        clients=12,
        cohort=4,
        rounds=16,
        seeds=(0, 1, 2),
        classes={"pat_20": 4, "pat_10": 2},
        min_per_holder=2,
        batch_size=1024,
        proxy_examples=20,
        eval_every=2,
        max_tokens=20_000,
    ),
}
