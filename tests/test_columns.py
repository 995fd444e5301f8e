"""Columns as they are handed over (lists, arrays, pandas, torch, files): converted, or one clear error."""

import dataclasses

import datasets
import numpy as np
import pandas as pd
import pytest
import torch

from fedlora_kit.data import Examples, Task, load_task, tasks
from fedlora_kit.data.sources import load_split
from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.partition import partitioner

TEXTS = ["so bad", "größer", "图", "b"]
LABELS = [0, 1, 2, 1]


# --- examples of one's own -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [
        LABELS,
        tuple(LABELS),
        np.array(LABELS, dtype=np.int32),
        np.array(LABELS, dtype=np.uint64),
        np.array(LABELS, dtype=object),
        pd.Series(LABELS, index=[9, 8, 7, 6]),
        pd.Series(LABELS, dtype="Int64"),
        torch.tensor(LABELS),
        torch.tensor(LABELS, dtype=torch.int32),
    ],
    ids=lambda labels: type(labels).__name__,
)
@pytest.mark.parametrize(
    "texts",
    [
        TEXTS,
        tuple(TEXTS),
        np.array(TEXTS),
        np.array(TEXTS, dtype=object),
        pd.Series(TEXTS, index=[3, 2, 1, 0]),
        [text.encode() for text in TEXTS],
    ],
    ids=lambda texts: type(texts).__name__,
)
def test_columns_of_any_make_are_taken(texts, labels):
    for columns in ((texts,), [texts], texts):
        examples = Examples(columns, labels, groups=texts)
        assert examples.columns == (TEXTS,)
        assert {type(text) for text in examples.columns[0]} == {str}
        assert (examples.labels.dtype, examples.labels.tolist()) == (np.int64, LABELS)
        assert examples.groups.tolist() == TEXTS
        assert examples.take(np.array([2, 0])).columns == (["图", "so bad"],)


def test_images_are_never_copied():
    pixels = np.zeros((2, 3, 4, 4), np.uint8)
    for columns in ((pixels,), pixels, (torch.from_numpy(pixels),)):
        assert np.shares_memory(Examples(columns, [0, 1]).columns[0], pixels)


@pytest.mark.parametrize(
    ("columns", "labels", "said"),
    [
        ((["a", None, "b"],), [0, 1, 0], r"column 0 is empty in row 1 \(1 rows"),
        ((["a", "b", float("nan")],), [0, 1, 0], "column 0 is empty in row 2"),
        ((pd.Series(["a", pd.NA, "b"]),), [0, 1, 0], "column 0 is empty in row 1"),
        ((["a", "b", "c\ud800"],), [0, 1, 0], "lone surrogate in row 2"),
        ((["a", b"\xff", "c"],), [0, 1, 0], "bytes in row 1 that are no UTF-8"),
        ((["a", ["b"], "c"],), [0, 1, 0], "a list .* in row 1"),
        ((["a", "b", 3],), [0, 1, 0], "a int .* in row 2"),
        ((np.arange(3),), [0, 1, 0], "in row 0, which is no text"),
        ((pd.DataFrame({"a": ["x"] * 3, "b": ["y"] * 3}),), [0, 1, 0], "shape"),
        ("abc", [0, 1, 0], "not one value an example"),
        ((["a", "b"],), [0, 1, 0], "differ in length: column 0 2, labels 3"),
        ((["a", "b", "c"],), ["0", "1", "0"], "labels holds '0' in row 0, which is no label"),
        ((["a", "b", "c"],), [0.0, 1.0, 0.0], "'0.0' in row 0"),
        ((["a", "b", "c"],), [True, False, True], "'True' in row 0"),
        ((["a", "b", "c"],), np.array([True, False, True]), "'True' in row 0"),
        ((["a", "b", "c"],), [0, 1, 2**63], "row 2"),
        ((["a", "b", "c"],), np.zeros((3, 1), np.int64), r"labels has shape \(3, 1\)"),
        ((["a", "b", "c"],), [0, None, 1], "labels is empty in row 1"),
        ((["a", "b", "c"],), 3, "not one value an example"),
    ],
)
def test_what_has_no_plain_meaning_is_refused_by_row(columns, labels, said):
    with pytest.raises(BadValue, match=said) as error:
        Examples(columns, labels)
    assert error.value.remedy


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (["a", None, "b"], "is empty in row 1"),
        ([float("nan"), 1.0, 2.0], "is empty in row 0"),
        ([1, "a", 2], "mixes texts and numbers: 1 in row 0, 'a' in row 1"),
        ([0.5, 1.0, 2.0], "a group is a whole number or a text"),
        ([["a"], ["b", "d"], ["c"]], "a group is a whole number or a text"),
    ],
)
def test_groups_are_of_one_kind_for_examples_and_for_partitioners(groups, said):
    with pytest.raises(BadValue, match=said):
        Examples((["a", "b", "c"],), [0, 1, 0], groups=groups)
    with pytest.raises(BadValue, match=said):
        partitioner("by_group", num_clients=2).split([0, 1, 0], groups=groups)


def test_references_are_texts():
    assert Examples((["q"], ["a"]), [0], [["a", b"b"]]).references == (("a", "b"),)
    for bad in ([["a", None]], [[]], ["a"], [[1]]):
        with pytest.raises(BadValue, match="right answers of example 0"):
            Examples((["q"], ["a"]), [0], bad)


def own(loader, columns=("text",), modality="text", **more):
    return Task("mine", modality, ("no", "yes"), columns, loader=loader, **more)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (own(lambda s: Examples((["a", None],), [0, 1])), "column 0 is empty in row 1"),
        (own(lambda s: (["a"], [0])), "the loader gave a tuple"),
        (own(lambda s: Examples((["a"], ["b"]), [0])), "gave 2 columns, and the task names 1"),
        (own(lambda s: Examples((np.zeros((1, 3, 2, 2), np.uint8),), [0])), "holds images"),
        (own(lambda s: Examples((["a"],), [0]), modality="image"), "holds texts"),
        (own(lambda s: {}[s]), "its loader raised KeyError: 'train'\n.*the splits train, validation"),
        (
            own(lambda s: Examples((["a", "b"],), [1, 2])),
            r"labels 1\.\.2, but 2 classes\n.*0 to 1.*subtract 1",
        ),
        (own(lambda s: Examples((["a", "b"],), [0, -1])), r"labels -1\.\.0, but 2 classes\n.*unlabelled"),
        (own(lambda s: Examples(([],), [])), "has no examples"),
    ],
)
def test_a_loaders_fault_is_one_error_that_names_task_and_split(task, said):
    with pytest.raises(FedloraError, match=said) as error:
        load_task(task)
    assert "mine" in str(error.value)
    assert "'train'" in str(error.value)


def test_chosen_classes_keep_the_further_right_answers():
    examples = Examples(
        (["p", "q", "r"], ["a", "b", "c"]), [0, 1, 2], [["a"], ["b", "B"], ["c", "C"]], [7, 8, 9]
    )
    task = own(lambda s: examples, ("question", "answer"), "causal", classes=(2, 1))
    part = load_split(task, "train")
    assert part.labels.tolist() == [1, 0]
    assert part.references == (("b", "B"), ("c", "C"))
    assert part.groups.tolist() == [8, 9]


# --- files ---------------------------------------------------------------------------------------


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Writes a split of glue/sst2 into a mirror."""
    folder = tmp_path / "hub" / "datasets" / "nyu-mll" / "glue" / "sst2"
    folder.mkdir(parents=True)
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path / "hub"))
    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path / "home"))

    def write(split, sentences, labels, names=None):
        table = datasets.Dataset.from_dict({"sentence": sentences, "label": labels})
        if names:
            table = table.cast_column("label", datasets.ClassLabel(names=names))
        table.to_parquet(str(folder / f"{split}.parquet"))
        return table

    return write


def labels(split, task="sst2"):
    return load_split(tasks.get_task(task), split).labels.tolist()


def test_class_labels_are_read_by_their_names(put):
    put("train", ["a", "b", "c"], [0, 1, 1], ["negative", "positive"])
    put("validation", ["a", "b", "c"], [0, 1, 1], ["Positive", "NEGATIVE "])
    assert labels("train") == [0, 1, 1]
    assert labels("validation") == [1, 0, 0]
    put("validation", ["a", "b", "c"], ["positive", "negative", "positive"])  # texts are names, too
    assert labels("validation") == [1, 0, 1]


@pytest.mark.parametrize(
    ("rows", "names", "said"),
    [
        ([0, 1], ["bad", "good"], "label has the unknown value 'bad'"),
        ([0, 2], ["negative", "positive", "neutral"], "label has the unknown value 'neutral'"),
        ([0, 1], ["negative", "Negative"], "two classes of label have one name"),
        ([0, -1], ["negative", "positive"], "labels -1..0"),
    ],
)
def test_class_names_that_are_not_the_tasks_are_refused(put, rows, names, said):
    put("train", ["a", "b"], rows, names)
    with pytest.raises(FedloraError, match=said):
        labels("train")


def test_a_chosen_class_that_the_file_does_not_know_is_refused(put, monkeypatch):
    some = dataclasses.replace(tasks.get_task("sst2"), label_names=("negative", "positive"), classes=(0, 2))
    put("train", ["a", "b"], [0, 1], ["negative", "neutral", "good"])
    with pytest.raises(FedloraError, match="no class 'positive'"):
        load_split(some, "train")
    put("train", ["a", "b"], [0, 2], ["negative", "neutral", "positive"])
    assert load_split(some, "train").labels.tolist() == [0, 1]


def test_a_name_that_no_row_has_does_no_harm(put):
    put("train", ["a", "b"], [2, 1], ["neutral", "positive", "negative"])
    assert labels("train") == [0, 1]


def test_binary_text_is_utf8_and_what_is_no_text_is_refused_by_column(put):
    put("train", ["größer".encode(), b"b"], [0, 1])
    assert load_split(tasks.get_task("sst2"), "train").columns == (["größer", "b"],)
    for bad, said in (([b"\xff", b"b"], "no UTF-8"), ([1, 2], "a int"), ([["a"], ["b"]], "a list")):
        put("train", bad, [0, 1])
        with pytest.raises(FedloraError, match=rf"nyu-mll/glue \(train\): column sentence holds .*{said}"):
            load_split(tasks.get_task("sst2"), "train")


def image_table(labels, names):
    rows = {"img": [{"bytes": png(10 * i), "path": None} for i in labels], "fine_label": labels}
    table = datasets.Dataset.from_dict(rows).cast_column("img", datasets.Image())
    return table if names is None else table.cast_column("fine_label", datasets.ClassLabel(names=names))


def loaded(task, table):
    return load_split(dataclasses.replace(task, tables={"train": table}), "train").labels


def png(grey):
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (2, 2), (grey,) * 3).save(file, "PNG")
    return file.getvalue()


def test_images_are_labelled_by_name_also_from_the_cache(tmp_path, monkeypatch):
    """One decoding serves a task of all classes and one of some, and neither trusts the file's order."""
    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path / "home"))
    task = tasks.get_task("cifar100")
    upstream = ["cra" if name == "crab" else name for name in task.label_names]
    turned = upstream[::-1]
    table = image_table([0, 1, 73, 99], turned)
    for _ in range(2):
        assert loaded(task, table).tolist() == [99, 98, 26, 0]
        half = dataclasses.replace(task, label_names=task.label_names[50:], classes=tuple(range(50, 100)))
        assert loaded(half, table).tolist() == [49, 48]
    assert loaded(task, image_table([3, 1], None)).tolist() == [3, 1]


def test_classes_without_known_names_are_in_the_order_of_the_alphabet(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path / "home"))
    task = dataclasses.replace(
        tasks.get_task("cifar100"), label_names=("one", "two"), label_order="alphabetical"
    )
    assert loaded(task, image_table([0, 1, 1], ["bus", "zebra"])).tolist() == [0, 1, 1]
    assert loaded(task, image_table([0, 1, 1], ["zebra", "bus"])).tolist() == [1, 0, 0]
    with pytest.raises(FedloraError, match="names 3 classes, task cifar100 has 2"):
        loaded(task, image_table([0, 1], ["a", "b", "c"]))
