"""One description for every task: what its examples are and where they lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fedlora_kit.data.examples import Column as Column
from fedlora_kit.data.examples import Examples as Examples

#: how a causal model's answers are scored: by GSM8K's final number, or by ROUGE-L: that of the papers, for
#: English, or one for texts in any script (see `training.scoring`)
Metric = Literal["final_number", "rouge_l", "rouge_l_any_script"]
#: what becomes of a causal task's examples that are longer than its ``max_length``
TooLong = Literal["error", "leave_out"]
#: what own files are: tables, or a folder of images with one sub-folder a class
Form = Literal["csv", "json", "parquet", "images"]

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
        hub_id, config, revision: the data set on the Hub; empty where the examples come from elsewhere. A
            revision that is no commit, or none, is looked up once a process; the commit stands in the keys.
        loader: split name -> examples, for built-in tasks and for data handed over by the caller.
        files, form: split -> the caller's own files, and what they are: tables, or one folder of images with
            a sub-folder a class. Their bytes stand in the keys, their places do not.
        tables: split -> a `datasets.Dataset` of the caller's.
        max_length: longest encoded example, in tokens; longer ones are cut (causal tasks: see ``too_long``).
        prompt: causal tasks: name of the template around the question (see `data.prompts`).
        max_new_tokens: causal tasks: tokens that a generated answer may have.
        group_column: name of the column with each example's group (see `Examples`); empty for none.
        classes: the source's labels that make up this task, numbered anew in this order; empty for all.
        external: name of a task with the same classes whose training split holds examples that no client
            holds and that are not scored (`FIMHLA`'s external proxy examples); empty if there is none.
        metric: causal tasks: how answers are scored.
        too_long: causal tasks: examples longer than ``max_length`` are an error, or are left out.
        held_out: where the source has the training split only: examples of each class that make up the scored
            split, as a number, or as a share below 1 (see `data.held_out`); 0 where the source has its own.
        layout: "table" (one table a split), or "task_files" (see `data.natural_instructions`).
        label_column: column of the classes, as integers, or as names from ``label_names``; empty for none. A
            file that names its integers (`datasets.ClassLabel`) is read by those names.
        label_order: "named": ``label_names`` are the classes' names. "alphabetical": their names are not
            known here; they are those of the file, in alphabetical order.
        store_side: images only: side in pixels of the squares that the images are brought to when they are
            decoded (see `data.images`); None where all have one size already.
        store_fit: how: "crop" cuts out the middle square, "stretch" keeps all of the image.
        grey: images only: kept in grey, one channel, for backbones that read grey images.
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
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    form: Form = "parquet"
    tables: Mapping[str, Any] = field(default_factory=dict)
    max_length: int = 128
    classes: tuple[int, ...] = ()
    external: str = ""
    store_side: int | None = None
    store_fit: Literal["crop", "stretch"] = "crop"
    grey: bool = False
    prompt: str = ""
    max_new_tokens: int = 0
    metric: Metric = "final_number"
    too_long: TooLong = "error"
    held_out: float = 0
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

    @property
    def source_splits(self) -> list[str]:
        """The splits of the source that the task reads."""
        return [self.train_split] if self.held_out else sorted({self.train_split, *self.eval_splits.values()})

    @property
    def parts(self) -> dict[str, str]:
        """Name in tables -> scored name: the task's own name where it scores one part, else name-part.

        >>> Task("t", "text", ("no", "yes"), ("text",)).parts
        {'t': 'validation'}
        """
        several = len(self.eval_splits) > 1
        return {f"{self.name}-{part}" if several else self.name: part for part in self.eval_splits}

    @property
    def description(self) -> str:
        """In a sentence: what it is, where it comes from, and whether the scored part was held out of it."""
        what = {"text": "texts", "image": "images", "causal": "answers"}[self.modality]
        names = ", ".join(self.label_names[:5]) + (", …" if self.num_labels > 5 else "")
        classes = f" in {self.num_labels} classes ({names})" if self.label_column else ""
        places = [place.rpartition("/")[2] for files in self.files.values() for place in files]
        source = self.hub_id or ", ".join(places) or ("a table in memory" if self.tables else "a loader")
        share = ""
        if 0 < self.held_out < 1:
            share = (
                f"; {100 * self.held_out:g} % of each class, drawn once by the examples' digests, are scored"
            )
        return f"{self.name}: {what}{classes} from {source}{share}"
