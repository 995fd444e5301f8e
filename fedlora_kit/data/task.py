"""One description for every task: what its examples are and where they lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from fedlora_kit.data.examples import Column as Column
from fedlora_kit.data.examples import Examples as Examples

#: how a causal model's answers are scored: by GSM8K's final number, or by ROUGE-L: that of the papers, for
#: English, or one for texts in any script (see `training.scoring`)
Metric = Literal["final_number", "rouge_l", "rouge_l_any_script"]
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
        hub_id, config, revision: the data set on the Hub; empty when ``loader`` gives the examples. A
            revision that is no commit, or none, is looked up once a process; the commit stands in the keys.
        loader: split name -> examples, for built-in tasks and for data handed over by the caller.
        max_length: longest encoded example, in tokens; longer ones are cut (causal tasks: see ``too_long``).
        prompt: causal tasks: name of the template around the question (see `data.prompts`).
        max_new_tokens: causal tasks: tokens that a generated answer may have.
        group_column: name of the column with each example's group (see `Examples`); empty for none.
        classes: the source's labels that make up this task, numbered anew in this order; empty for all.
        external: name of a task with the same classes whose training split holds examples that no client
            holds and that are not scored (`FIMHLA`'s external proxy examples); empty if there is none.
        metric: causal tasks: how answers are scored.
        too_long: causal tasks: examples longer than ``max_length`` are an error, or are left out.
        held_out: where the source has the training split only: examples of each class that make up the split
            "test" (see `data.held_out`); 0 where the source has its own test split.
        layout: "table" (one table a split), or "task_files" (see `data.natural_instructions`).
        label_column: column of the classes, as integers, or as names from ``label_names``; empty for none. A
            file that names its integers (`datasets.ClassLabel`) is read by those names.
        label_order: "named": ``label_names`` are the classes' names. "alphabetical": their names are not
            known here; they are those of the file, in alphabetical order.
        store_side: images only: side in pixels of the squares that the images are brought to when they are
            decoded (see `data.images`); None where all have one size already.
        store_fit: how: "crop" cuts out the middle square, "stretch" keeps all of the image.
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
    group_column: str = ""
    loader: Loader | None = None
    max_length: int = 128
    classes: tuple[int, ...] = ()
    external: str = ""
    store_side: int | None = None
    store_fit: Literal["crop", "stretch"] = "crop"
    prompt: str = ""
    max_new_tokens: int = 0
    metric: Metric = "final_number"
    too_long: TooLong = "error"
    held_out: int = 0
    layout: Literal["table", "task_files"] = "table"
    label_order: Literal["named", "alphabetical"] = "named"

    @property
    def source_columns(self) -> tuple[str, ...]:
        """All columns that are read from the source."""
        return tuple(filter(None, (*self.columns, self.label_column, self.group_column)))

    @property
    def num_labels(self) -> int:
        """Number of classes."""
        return len(self.label_names)
