"""How many examples a run reads and how long they are, without encoding the whole data set and without a
network.

Built-in tasks, the user's own and those of a mirror are looked at; for the others there is a table of the
published sizes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedlora_kit import paths
from fedlora_kit.data.encoded import encode_text
from fedlora_kit.data.encoded_causal import encode_causal
from fedlora_kit.data.examples import Examples
from fedlora_kit.data.origin import origin
from fedlora_kit.data.sources import load_split
from fedlora_kit.data.task import Task
from fedlora_kit.data.tasks import get_task
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.models.names import backbone_folder
from fedlora_kit.models.tokenizer import load_tokenizer
from fedlora_kit.planning.architectures import architecture, image_tokens

#: examples that are tokenised to learn how long they are
SAMPLE = 256
#: characters a token where no tokenizer is at hand: on the mirror's GLUE, Dolly and Natural Instructions 3.9
#: to 4.6 with the tokenizers of RoBERTa and the like
CHARACTERS = 4.2

Lengths = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """Examples of one kind: how many, and the tokens of some of them.

    Attributes:
        count: examples.
        lengths: tokens of a sample of them, all that there are for images.
        prompts: tokens before the answer, of the same sample; empty but for causal tasks.
    """

    count: int
    lengths: Lengths
    prompts: Lengths

    def limited(self, count: int | None) -> Part:
        """The same with at most so many examples."""
        return self if count is None else replace(self, count=max(0, min(self.count, count)))


@dataclass(frozen=True)
class Amounts:
    """What a run trains and scores.

    Attributes:
        train: what the clients hold together, after all limits.
        evals: scored part -> its examples.
        server: examples at the server.
        held_out: examples of all clients that score their own adapters.
        new_tokens: tokens that a generated answer may have; 0 for classifiers.
        known: where the numbers are from: "data" or "published sizes".
    """

    train: Part
    evals: dict[str, Part]
    server: int
    held_out: int
    new_tokens: int
    known: str


@dataclass(frozen=True)
class Published:
    """Size of a data set on the Hub.

    Attributes:
        train: training examples; evals: scored part -> examples.
        tokens, prompt: mean tokens an example, and before its answer; None for images.
        megabytes: of the files that are downloaded, about; None where not known.
    """

    train: int
    evals: dict[str, int]
    tokens: int | None = None
    prompt: int = 0
    megabytes: float | None = None


#: Examples: the data sets' cards on the Hub (GLUE, GSM8K, Dolly, CIFAR-100, Food-101, LexGLUE); of
#: DomainNet-121 the Hub shows 32.7k and 3.63k images, 121 classes of 270 and 30. Tokens: means measured on
#: samples of SST-2 and QNLI with RoBERTa's tokenizer, of GSM8K, Dolly and Natural Instructions (8 task
#: files of at most 600 instances) with prompt template and RoBERTa's tokenizer; QQP, MNLI and LEDGAR:
#: estimates of ours. Megabytes: what such files weigh, rounded; an order of magnitude. Texts are
#: taken to lie about their mean as a gamma distribution of shape 4 does.
PUBLISHED: dict[str, Published] = {
    "sst2": Published(67_349, {"validation": 872}, 13, megabytes=4),
    "qnli": Published(104_743, {"validation": 5_463}, 51, megabytes=19),
    "qqp": Published(363_846, {"validation": 40_430}, 30, megabytes=40),
    "mnli": Published(392_702, {"matched": 9_815, "mismatched": 9_832}, 40, megabytes=54),
    "ledgar": Published(60_000, {"test": 10_000}, 150, megabytes=22),
    "domainnet": Published(32_670, {"test": 3_630}),
    "cifar100": Published(50_000, {"test": 10_000}, megabytes=143),
    "cifar100_proxy": Published(100, {}),
    "food101": Published(75_750, {"validation": 25_250}, megabytes=5_000),
    "gsm8k": Published(7_473, {"test": 1_319}, 180, 84, megabytes=3),
    "dolly": Published(14_361, {"test": 400}, 187, 118, megabytes=8),
    "natural_instructions": Published(4_000, {"test": 800}, 195, 190, megabytes=6),
}


def amounts(spec: RunSpec) -> Amounts:
    """What a run trains and scores.

    Raises:
        FedloraError: a task that lies nowhere on this machine and whose size is not known.
    """
    kind, data = get_task(spec.data.task), spec.data
    length = data.max_length or kind.max_length
    prompt, side = data.prompt or kind.prompt, data.image_size
    train, evals, known = _parts(kind.name, spec.model.backbone, length, prompt, side, str(paths.hub_dir()))
    if data.holdout:
        evals = {**evals, "holdout": train.limited(data.holdout)}
    limited = {n: p if n == "holdout" else p.limited(data.eval_limit) for n, p in evals.items()}
    train = train.limited(train.count - data.holdout).limited(data.train_limit)
    train = train.limited(train.count - data.server_examples)
    held = int(data.client_holdout * train.count)
    new = (data.max_new_tokens or kind.max_new_tokens) if kind.modality == "causal" else 0
    return Amounts(train.limited(train.count - held), limited, data.server_examples, held, new, known)


@lru_cache(maxsize=64)
def _parts(
    task: str, backbone: str, max_length: int, prompt: str, image_size: int | None, _hub: str
) -> tuple[Part, dict[str, Part], str]:
    kind = get_task(task)
    splits = {"": kind.train_split, **kind.eval_splits}
    patches = 0
    if kind.modality == "image":
        patches = image_tokens(architecture(backbone, "image", image_size))
    if _is_here(kind):
        looked = (backbone, max_length, prompt, patches)
        parts = {name: _look(kind, split, *looked) for name, split in splits.items()}
        return parts.pop(""), parts, "data"
    if task not in PUBLISHED:
        raise FedloraError(
            f"the size of task {task!r} is not known here",
            "set FEDLORA_HUB to a mirror that holds its data",
        )
    size = PUBLISHED[task]
    tokens = patches if size.tokens is None else size.tokens
    lengths = _spread(tokens, max_length) if size.tokens else np.array([tokens], dtype=np.int64)
    prompts = (lengths * (size.prompt / tokens)).astype(np.int64) if size.prompt else lengths[:0]
    parts = {name: Part(count, lengths, prompts) for name, count in size.evals.items()}
    return Part(size.train, lengths, prompts), parts, "published sizes"


def _spread(mean: int, most: int) -> Lengths:
    """Lengths of `SAMPLE` texts about a mean: a gamma distribution of shape 4, cut at ``most``."""
    from scipy.stats import gamma

    places = (np.arange(SAMPLE) + 0.5) / SAMPLE
    found: Lengths = np.clip(np.round(gamma.ppf(places, 4, scale=mean / 4)), 2, most).astype(np.int64)
    return found


def _is_here(kind: Task) -> bool:
    try:
        found = [origin(kind, split) for split in kind.source_splits]
    except FedloraError:  # task files that the mirror lacks
        return False
    own = ("loader", "table", "files")
    return all(at.kind in own or (at.kind == "mirror" and all(f.is_file() for f in at.files)) for at in found)


def _look(kind: Task, split: str, backbone: str, max_length: int, prompt: str, patches: int) -> Part:
    """One split: its number of examples, and the lengths of a sample."""
    nothing = np.empty(0, dtype=np.int64)
    if kind.modality == "image":
        tokens = np.array([patches], dtype=np.int64)
        at = origin(kind, split)
        if at.kind == "mirror" and not kind.held_out:
            return Part(_rows(kind, at.files[0]), tokens, nothing)
        return Part(len(load_split(kind, split)), tokens, nothing)
    examples = load_split(kind, split)
    rows = np.random.default_rng(0).permutation(len(examples))[:SAMPLE]
    some = examples.take(np.sort(rows))
    tokenizer = _tokenizer(backbone)
    if tokenizer is None:
        characters = np.array([sum(map(len, row)) for row in zip(*some.columns, strict=True)])
        lengths = np.clip(characters / CHARACTERS, 1, max_length).astype(np.int64)
        if kind.modality == "text":
            return Part(len(examples), lengths, nothing)
        answers = np.array([len(str(answer)) for answer in some.columns[-1]]) / CHARACTERS
        return Part(len(examples), lengths, np.maximum(1, lengths - answers).astype(np.int64))
    if kind.modality == "text":
        return Part(len(examples), encode_text(some, tokenizer, max_length).lengths, nothing)
    return _causal(kind, examples, some, tokenizer, max_length, prompt)


def _causal(
    kind: Task, examples: Examples, some: Examples, tokenizer: Any, max_length: int, prompt: str
) -> Part:
    encoded = encode_causal(
        some,
        tokenizer,
        prompt=prompt,
        max_length=max_length,
        max_new_tokens=kind.max_new_tokens,
        metric=kind.metric,
        too_long=kind.too_long,
    )
    kept = len(examples) * len(encoded) // len(some)  # some are too long, and left out
    return Part(kept, encoded.lengths, encoded.prompt_lengths)


def _rows(kind: Task, file: Path) -> int:
    """Rows of a mirror's file; of a task on some of its classes, their share of them."""
    import pandas as pd

    labels = pd.read_parquet(file, columns=[kind.label_column])[kind.label_column]
    return int(labels.isin(kind.classes).sum()) if kind.classes else len(labels)


def _tokenizer(backbone: str) -> Any:
    """The tokenizer if it lies on this machine, else None."""
    try:
        return load_tokenizer(backbone) if backbone_folder(backbone) is not None else None
    except FedloraError:
        return None
