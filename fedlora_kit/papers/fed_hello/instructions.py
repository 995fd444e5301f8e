"""Fed-HeLLo on instructions: all methods on Dolly-15K and Natural Instructions, scored by ROUGE-L.

That the paper has these two data sets is known from a reader's note (SECOND); its model, splits, settings,
metric and numbers are not (UNKNOWN), and the released code has no text generation. Everything here is our
choice: the resources, LoRA and the allocation carried over from Table II, the rest from neighbours (FedIT,
FedKSeed).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.papers import laptop
from fedlora_kit.papers.fed_hello import grid
from fedlora_kit.study import words
from fedlora_kit.study.grid import Cell
from fedlora_kit.study.known_methods import names as known_names
from fedlora_kit.study.overrides import override, plain, positive
from fedlora_kit.study.planned import Runs
from fedlora_kit.study.tasks import fitting

ITEMS = {"dolly": "fed-hello/dolly", "natural_instructions": "fed-hello/natural_instructions"}
#: split -> categories (of Natural Instructions: tasks) that a client holds; 0 for no rule
SPLITS = {"iid": 0, "cat_2": 2, "cat_1": 1}
WORDS = {split: words.SPLITS[split] for split in SPLITS}
ROC = "1:1:1"


@dataclass(frozen=True)
class Setting(grid.Setting):
    """`fed_hello.grid.Setting`, and what a causal language model needs besides.

    Attributes:
        steps: AdamW steps a client and round, each on ``batch_size`` examples.
        prompt, max_new_tokens: see `data.task.Task`; None takes the task's own.
        dtype, gradient_checkpointing: see `experiments.spec.ModelSpec`.
    """

    steps: int = 1
    prompt: str | None = None
    max_new_tokens: int | None = None
    dtype: str = "fp32"
    gradient_checkpointing: bool = False


_PAPER = Setting(
    task="dolly",
    backbone="huggyllama/llama-7b",
    clients=100,
    cohort=10,
    rounds=60,
    seeds=(0, 1, 2),
    classes=SPLITS,
    min_per_holder=5,
    batch_size=16,
    proxy_examples=100,
    splits=("iid", "cat_2"),
    lr=3e-4,
    steps=10,
    dtype="bf16",
    gradient_checkpointing=True,
    eval_every=0,
    max_tokens=8192,
)
_SMALL = dataclasses.replace(
    _PAPER,
    backbone="TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    clients=12,
    cohort=6,
    rounds=15,
    batch_size=8,
    proxy_examples=40,
    train_limit=3000,
    eval_limit=200,
    max_length=512,
)
_LAPTOP = dataclasses.replace(
    _SMALL,
    backbone=laptop.LANGUAGE,
    clients=12,
    cohort=3,
    min_per_holder=0,
    rounds=5,
    seeds=laptop.SEEDS,
    batch_size=4,
    proxy_examples=8,
    splits=("cat_2",),
    lr=1e-3,
    steps=1,
    prompt="plain",
    train_limit=1500,
    eval_limit=24,
    max_length=256,
    max_new_tokens=24,
    dtype="fp32",
    gradient_checkpointing=False,
)
_SMOKE = Setting(
    task="instructions",
    backbone="kit/instruct-tiny",
    clients=12,
    cohort=3,
    rounds=8,
    seeds=(0, 1, 2),
    classes=SPLITS,
    min_per_holder=2,
    batch_size=12,
    proxy_examples=16,
    splits=("cat_2",),
    steps=2,
    eval_limit=64,
    eval_every=0,
    max_tokens=4096,
)
#: task of the item -> profile -> setting
PROFILES: dict[str, dict[str, Setting]] = {
    "dolly": {"paper": _PAPER, "small": _SMALL, "laptop": _LAPTOP, "smoke": _SMOKE},
    "natural_instructions": {
        "paper": dataclasses.replace(_PAPER, task="natural_instructions", rounds=40, splits=("iid", "cat_1")),
        "small": dataclasses.replace(_SMALL, task="natural_instructions", splits=("iid", "cat_1")),
        "laptop": dataclasses.replace(
            _LAPTOP, task="natural_instructions", splits=("cat_1",), max_length=384
        ),
        "smoke": dataclasses.replace(_SMOKE, splits=("cat_1",)),
    },
}


def setting(data_set: str, profile: str, **overrides: Any) -> Setting:
    """The setting of a profile, with some values replaced (those that are not None).

    Args:
        data_set: "dolly" or "natural_instructions": which item.

    Raises:
        UnknownName: no such item, profile, setting, task, method or split.
        BadValue: a value that cannot be used.
    """
    if data_set not in ITEMS:
        raise UnknownName("data set of Fed-HeLLo's instruction items", data_set, ITEMS)
    item = ITEMS[data_set]
    return override(item, PROFILES[data_set], profile, overrides, lambda n, v: _checked(data_set, n, v))


#: settings of the image items that would change nothing here
_NOT_HERE = {
    "mode": "has the described methods only",
    "precision": "takes its number format from dtype",
    "augment": "has no images",
}


def _checked(data_set: str, name: str, value: Any) -> Any:
    if name in _NOT_HERE:
        raise BadValue(f"{name}={value!r}", f"leave {name} out: {ITEMS[data_set]} {_NOT_HERE[name]}")
    made = plain(name, value)
    allowed = {"methods": known_names(grid.METHODS), "splits": tuple(SPLITS)}
    if name == "task":
        fitting(ITEMS[data_set], value, answers=True, rouge=True)
    for one in made if name in allowed else ():
        if one not in allowed[name]:
            raise UnknownName(f"{name.removesuffix('s')} of {ITEMS[data_set]}", one, allowed[name])
    if isinstance(value, int) and not isinstance(value, bool) and value < 1:
        raise BadValue(f"{name}={value}", "give 1 or more")
    if name == "lr":
        positive(name, (value,))
    return made


def cell(s: Setting, split: str, method: str, seed: int) -> Cell:
    """One run."""
    from fedlora_kit.experiments.spec import RunSpec

    lora = {"rank": s.rank, "alpha": s.alpha, "dropout": s.dropout, "targets": ["q", "v"]}
    spec = RunSpec.parse(
        {
            "model": {
                "backbone": s.backbone,
                "lora": lora,
                "dtype": s.dtype,
                "gradient_checkpointing": s.gradient_checkpointing,
            },
            "data": {
                "task": s.task,
                "prompt": s.prompt,
                "max_length": s.max_length,
                "max_new_tokens": s.max_new_tokens,
                "train_limit": s.train_limit,
                "eval_limit": s.eval_limit,
            },
            "split": grid.split_settings(s, split),
            "method": {"name": method, "settings": grid.method_settings(s, method, ROC)},
            "local": {
                "optimizer": "adamw",
                "lr": s.lr,
                "lr_decay": s.lr_decay,
                "weight_decay": s.weight_decay,
                "steps": s.steps,
                "batch_size": s.batch_size,
                "max_tokens": s.max_tokens,
            },
            "rounds": {
                "rounds": s.rounds,
                "cohort": s.cohort,
                "eval_every": s.eval_every,
                "eval_max_tokens": 4 * s.max_tokens,
            },
            "seed": seed,
        }
    )
    return Cell({"split": split, "method": method, "dataset": s.task}, {}, seed, spec)


def cells(s: Setting) -> list[Cell]:
    """Every run of splits × methods × seeds."""
    return [cell(s, split, method, seed) for split in s.splits for method in s.methods for seed in s.seeds]


def start(s: Setting, device: str) -> dict[str, Any]:
    """What every method starts from: the scores before the first round, as `evaluate` gives them."""
    from fedlora_kit.experiments.placing import device_for
    from fedlora_kit.experiments.setup import build
    from fedlora_kit.training.evaluation import evaluate

    spec = cell(s, s.splits[0], "lora", s.seeds[0]).spec
    fed = build(spec, device_for(spec, device))
    (scored, *_) = fed.evals.values()
    return evaluate(fed.model, scored, fed.device, fed.rounds.eval_max_tokens, fed.precision)


def train_labels(s: Setting) -> npt.NDArray[np.int64]:
    """Category of each training example (those for Fisher scores, too) after all limits, shape (n,)."""
    from fedlora_kit.experiments.setup import load_data

    data, _ = load_data(cell(s, s.splits[0], "lora", s.seeds[0]).spec.data, s.backbone)
    return data.labels


def lengths(s: Setting) -> dict[str, Mapping[str, int]]:
    """Of the training examples and the test part: how many there are, and how many were too long."""
    from fedlora_kit.data.encoded_causal import EncodedCausal, encode_causal
    from fedlora_kit.data.sources import load_task
    from fedlora_kit.data.tasks import get_task
    from fedlora_kit.models.tokenizer import load_tokenizer

    task, tokenizer = get_task(s.task), load_tokenizer(s.backbone)
    loaded = load_task(task)
    found: dict[str, Mapping[str, int]] = {}
    for name, examples in {"train": loaded.train, **loaded.evals}.items():
        encoded: EncodedCausal = encode_causal(
            examples,
            tokenizer,
            prompt=s.prompt or task.prompt,
            max_length=s.max_length or task.max_length,
            max_new_tokens=s.max_new_tokens or task.max_new_tokens,
            metric=task.metric,
            too_long=task.too_long,
        )
        found[name] = {
            "examples": len(encoded),
            "left out, too long": encoded.left_out,
            "longest, tokens": int(encoded.lengths.max()),
        }
    return found


def runs(profile: str, item: str, **parameters: Any) -> Runs:
    """Methods × splits × seeds on the item's data set."""
    return Runs(tuple(cells(setting(item.removeprefix("fed-hello/"), profile, **parameters))))
