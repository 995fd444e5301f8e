"""One description for every task: what its examples are and where they lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from fedlora_kit.data import class_names
from fedlora_kit.data.examples import Column as Column
from fedlora_kit.data.examples import Examples as Examples
from fedlora_kit.errors import BadValue, UnknownName

#: nyu-mll/glue on the Hub, pinned.
GLUE_REVISION = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
#: openai/gsm8k on the Hub, pinned.
GSM8K_REVISION = "e53f048856ff4f594e959d75785d2c2d37b678ee"
#: databricks/databricks-dolly-15k on the Hub, pinned: the last change of its rows.
DOLLY_REVISION = "d72c16e4644a463b9c678c71d9440befd4594556"


#: how a causal model's answers are scored: by GSM8K's final number, or by ROUGE-L (see `training.scoring`)
Metric = Literal["final_number", "rouge_l"]
#: what becomes of a causal task's examples that are longer than its ``max_length``
TooLong = Literal["error", "leave_out"]


Loader = Callable[[str], Examples]


@dataclass(frozen=True)
class Task:
    """A classification task on texts or images, or a task of answering with a causal language model.

    Attributes:
        name: the kit's name for it ("sst2").
        modality: "text", "image" or "causal".
        label_names: class names; the label's integer is its position here. For a causal task these are
            categories that divide the examples among clients; no model predicts them. One name: none.
        columns: names of the example columns in the source (one or two sentences, or one image; for a causal
            task the question and the answer, or instruction, input and response).
        train_split: split to train on.
        eval_splits: scored name -> split, e.g. ``{"matched": "validation_matched"}``.
        hub_id, config, revision: the data set on the Hub; empty when ``loader`` gives the examples.
        loader: split name -> examples, for built-in tasks and for data handed over by the caller.
        max_length: longest encoded example, in tokens; longer ones are cut (causal tasks: see ``too_long``).
        prompt: causal tasks: name of the template around the question (see `data.prompts`).
        max_new_tokens: causal tasks: tokens that a generated answer may have.
        classes: the source's labels that make up this task, numbered anew in this order; empty for all.
        metric: causal tasks: how answers are scored.
        too_long: causal tasks: examples longer than ``max_length`` are an error, or are left out.
        held_out: where the source has the training split only: examples of each class that make up the split
            "test" (see `data.held_out`); 0 where the source has its own test split.
        layout: "table" (one table a split), or "task_files" (see `data.natural_instructions`).
        label_column: column of the classes, as integers, or as names from ``label_names``; empty for none.
        store_side: images only: side in pixels of the squares that the images are brought to when they are
            decoded (see `data.images`); None where all have one size already.
    """

    name: str
    modality: Literal["text", "image", "causal"]
    label_names: tuple[str, ...]
    columns: tuple[str, ...]
    train_split: str = "train"
    eval_splits: Mapping[str, str] = field(default_factory=lambda: {"validation": "validation"})
    hub_id: str = ""
    config: str = ""
    revision: str = ""
    label_column: str = "label"
    loader: Loader | None = None
    max_length: int = 128
    classes: tuple[int, ...] = ()
    store_side: int | None = None
    prompt: str = ""
    max_new_tokens: int = 0
    metric: Metric = "final_number"
    too_long: TooLong = "error"
    held_out: int = 0
    layout: Literal["table", "task_files"] = "table"

    @property
    def num_labels(self) -> int:
        """Number of classes."""
        return len(self.label_names)


def _glue(name: str, columns: tuple[str, ...], labels: tuple[str, ...], **extra: object) -> Task:
    return Task(
        name,
        "text",
        labels,
        columns,
        hub_id="nyu-mll/glue",
        config=name,
        revision=GLUE_REVISION,
        **extra,  # type: ignore[arg-type]
    )


def _cifar100(name: str, classes: tuple[int, ...] = ()) -> Task:
    names = tuple(class_names.CIFAR100[c] for c in classes) or class_names.CIFAR100
    return Task(
        name,
        "image",
        names,
        ("img",),
        eval_splits={"test": "test"},
        hub_id="uoft-cs/cifar100",
        label_column="fine_label",
        classes=classes,
    )


def _builtin_text(kind: str) -> Loader:
    def load(split: str) -> Examples:
        from fedlora_kit.data import builtin_text

        return builtin_text.examples(kind, split)

    return load


def _digits(split: str) -> Examples:
    from fedlora_kit.data.digits import digits

    images, labels = digits({"train": "train", "validation": "test"}[split], quarter_turns=1)
    return Examples((images,), labels)


def _arithmetic(split: str) -> Examples:
    from fedlora_kit.data import builtin_arithmetic

    return builtin_arithmetic.examples(split)


def _answers(name: str, **extra: object) -> Task:
    """A causal task with the columns question and answer, scored on its test split."""
    return Task(
        name,
        "causal",
        ("answer",),
        ("question", "answer"),
        eval_splits={"test": "test"},
        label_column="",
        **extra,  # type: ignore[arg-type]
    )


def _instructions(split: str) -> Examples:
    from fedlora_kit.data import builtin_instructions

    return builtin_instructions.examples(split)


def _responses(name: str, label_names: tuple[str, ...], **extra: object) -> Task:
    """A causal task with the columns instruction, input and response, scored by ROUGE-L."""
    return Task(
        name,
        "causal",
        label_names,
        ("instruction", "context", "response"),
        eval_splits={"test": "test"},
        label_column="category",
        metric="rouge_l",
        **extra,  # type: ignore[arg-type]
    )


TASKS: dict[str, Task] = {
    t.name: t
    for t in (
        _glue("sst2", ("sentence",), ("negative", "positive")),
        _glue("qnli", ("question", "sentence"), ("entailment", "not_entailment")),
        _glue("qqp", ("question1", "question2"), ("not_duplicate", "duplicate")),
        _glue(
            "mnli",
            ("premise", "hypothesis"),
            ("entailment", "neutral", "contradiction"),
            eval_splits={"matched": "validation_matched", "mismatched": "validation_mismatched"},
        ),
        Task("polarity", "text", ("negative", "positive"), ("sentence",), loader=_builtin_text("polarity")),
        Task(
            "entailment",
            "text",
            ("entailment", "neutral", "contradiction"),
            ("premise", "hypothesis"),
            eval_splits={"matched": "matched", "mismatched": "mismatched"},
            loader=_builtin_text("entailment"),
        ),
        Task(
            "paraphrase",
            "text",
            ("not_duplicate", "duplicate"),
            ("question1", "question2"),
            loader=_builtin_text("paraphrase"),
        ),
        Task(
            "answerable",
            "text",
            ("entailment", "not_entailment"),
            ("question", "sentence"),
            loader=_builtin_text("answerable"),
        ),
        Task("digits", "image", tuple("0123456789"), ("image",), loader=_digits),
        _cifar100("cifar100"),
        # Without the classes that kit/image-mirror is pre-trained on: it has seen none of these images.
        _cifar100("cifar100_rest", tuple(range(50, 100))),
        Task(
            "food101",
            "image",
            class_names.FOOD101,
            ("image",),
            hub_id="ethz/food101",
            config="default",
            store_side=256,
        ),
        _answers("arithmetic", loader=_arithmetic, max_length=96, prompt="plain", max_new_tokens=24),
        _answers(
            "gsm8k",
            hub_id="openai/gsm8k",
            config="main",
            revision=GSM8K_REVISION,
            max_length=1024,
            prompt="alpaca",
            max_new_tokens=400,
        ),
        _responses(
            "instructions",
            class_names.INSTRUCTIONS,
            loader=_instructions,
            max_length=96,
            prompt="plain",
            max_new_tokens=16,
        ),
        _responses(
            "dolly",
            class_names.DOLLY,
            hub_id="databricks/databricks-dolly-15k",
            revision=DOLLY_REVISION,
            max_length=1024,
            too_long="leave_out",
            held_out=50,
            prompt="alpaca",
            max_new_tokens=128,
        ),
        _responses(
            "natural_instructions",
            class_names.NATURAL_INSTRUCTIONS,
            hub_id="allenai/natural-instructions",
            layout="task_files",
            max_length=1024,
            too_long="leave_out",
            held_out=100,
            prompt="alpaca",
            max_new_tokens=128,
        ),
    )
}


def get_task(name: str) -> Task:
    """The task called ``name``.

    Raises:
        UnknownName: no such task; the message lists the known ones.
    """
    if name not in TASKS:
        raise UnknownName("task", name, TASKS)
    return TASKS[name]


def register_task(new: Task, *, replace: bool = False) -> Task:
    """Make a task of your own known by its name, so that runs can name it.

    Raises:
        BadValue: the name is taken and ``replace`` is false.
    """
    if new.name in TASKS and not replace:
        raise BadValue(
            f"a task called {new.name!r} is already there", "choose another name, or pass replace=True"
        )
    if new.loader is None and not new.hub_id:
        raise BadValue(f"task {new.name!r} has neither a loader nor a Hub id", "give one of them")
    TASKS[new.name] = new
    return new
