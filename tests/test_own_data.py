"""Tasks from data of one's own: every source, what stands in the key, and one clear error for each misfit."""

from __future__ import annotations

import dataclasses
import json
import shutil
import warnings
from pathlib import Path

import datasets
import numpy as np
import pytest
from datasets.table import embed_table_storage
from PIL import Image

from fedlora_kit.data import Examples, Task, fingerprint, get_task, load_task, register_task, tasks
from fedlora_kit.data.own import task_from
from fedlora_kit.errors import BadValue, FedloraError, UnknownName
from fedlora_kit.experiments.setup import load_data
from fedlora_kit.experiments.spec import DataSpec, RunSpec
from fedlora_kit.partition import partitioner

ROWS = [
    {"text": f"the {word} number {i} came", "queue": queue, "site": site}
    for i in range(20)
    for word, queue, site in (("bill", "billing", "NA"), ("login", "access", "EU"), ("parcel", "post", "EU"))
]
SPLITS = {"train": ROWS[:45], "test": ROWS[45:]}


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    """Tasks are forgotten after a test; decoded images and tables go to its own folder."""
    from fedlora_kit import paths

    before = dict(tasks.TASKS)
    monkeypatch.setattr(paths, "data_dir", lambda: tmp_path / "data")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "backbones").symlink_to(Path(tasks.__file__).parents[2] / "data" / "backbones")
    yield
    tasks.TASKS.clear()
    tasks.TASKS.update(before)


def write(folder: Path, form: str, name: str, rows: list[dict]) -> Path:
    folder.mkdir(exist_ok=True)
    table, path = datasets.Dataset.from_list(rows), folder / f"{name}.{form}"
    {"csv": table.to_csv, "jsonl": table.to_json, "parquet": table.to_parquet}[form](str(path))
    return path


def pictures(root: Path, sizes: dict[str, int], side: int = 8) -> Path:
    """Folders of images, one a class; the grey level is the class's."""
    for level, (place, n) in enumerate(sizes.items()):
        (root / place).mkdir(parents=True)
        for i in range(n):
            Image.new("RGB", (side, side), (40 * level, 9 * i, 0)).save(root / place / f"{i}.png")
    return root


TICKETS = {"columns": "text", "label": "queue"}


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_files_of_any_form_give_the_same_task(tmp_path, form):
    files = {split: write(tmp_path, form, split, rows) for split, rows in SPLITS.items()}
    task = task_from("tickets", **{form: files}, **TICKETS, group="site")
    assert (task.label_names, task.eval_splits) == (("access", "billing", "post"), {"test": "test"})
    data = load_task(get_task("tickets"))
    assert data.train.columns == ([row["text"] for row in SPLITS["train"]],)
    assert data.train.labels[:3].tolist() == [1, 0, 2]
    assert data.evals["test"].groups[:3].tolist() == ["NA", "EU", "EU"]  # "NA" is a text, and not missing
    parts = partitioner("by_group", num_clients=2).split(data.train.labels, groups=data.train.groups)
    assert sorted(map(len, parts)) == [15, 30]


def test_tables_in_memory_and_several_files_of_a_split(tmp_path):
    whole = {split: datasets.Dataset.from_list(rows) for split, rows in SPLITS.items()}
    task = task_from("tickets", dataset=datasets.DatasetDict(whole), **TICKETS)
    parts = [write(tmp_path, "csv", f"part{i}", SPLITS["train"][i : i + 15]) for i in (0, 15, 30)]
    files = {"train": parts, "test": write(tmp_path, "csv", "test", SPLITS["test"])}
    other = task_from("parts", csv=files, **TICKETS)
    for one, two in zip(vars(load_task(task)).values(), vars(load_task(other)).values(), strict=True):
        if isinstance(one, Examples):
            assert (one.columns, one.labels.tolist()) == (two.columns, two.labels.tolist())
    same = dataclasses.replace(task, tables={k: datasets.Dataset.from_list(v) for k, v in SPLITS.items()})
    assert fingerprint(same) == fingerprint(task)
    assert fingerprint(dataclasses.replace(task, tables={**whole, "train": whole["test"]})) != fingerprint(
        task
    )


def test_images_in_folders_by_split_or_with_a_share_held_out(tmp_path):
    folder = pictures(tmp_path / "split", {"train/b": 4, "train/a": 3, "test/a": 2})
    data = load_task(task_from("shapes", images=folder))
    assert data.task.label_names == ("a", "b")
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert data.train.columns[0].shape == (7, 3, 8, 8)
    assert data.train.columns[0][0, 0, 0, 0] == 40
    assert data.evals["test"].labels.tolist() == [0, 0]
    one = task_from(
        "grey", images=pictures(tmp_path / "one", {"x": 10, "y/deeper": 5}), held_out=0.2, grey=True
    )
    data = load_task(one)
    assert (len(data.train), data.train.columns[0].shape[1]) == (12, 1)
    assert data.evals["test"].labels.tolist() == [0, 0, 1]
    assert "20 % of each class" in one.description


def test_a_column_of_images_in_memory_and_one_of_paths_only(tmp_path):
    folder = pictures(tmp_path / "shapes", {"a": 3, "b": 3})
    files = sorted(str(f) for f in folder.glob("*/*.png"))
    table = datasets.Dataset.from_dict({"image": files, "label": [0, 0, 0, 1, 1, 1]})
    table = table.cast_column("image", datasets.Image())
    more = {"columns": "image", "modality": "image", "held_out": 0.4}
    first = load_task(task_from("memory", dataset=table, **more)).train.columns[0]
    table.to_parquet(str(tmp_path / "paths.parquet"))
    with pytest.raises(FedloraError, match=r"row 0 of paths\.parquet \(train\) holds the path .*0\.png") as e:
        load_task(task_from("paths", parquet=tmp_path / "paths.parquet", **more))
    assert "embed_table_storage" in e.value.remedy
    whole = table.with_format("arrow").map(embed_table_storage, batched=True)
    whole.to_parquet(str(tmp_path / "whole.parquet"))
    shutil.rmtree(folder)
    again = load_task(task_from("whole", parquet=tmp_path / "whole.parquet", **more)).train.columns[0]
    assert np.array_equal(first, again)


def test_answers_with_categories(tmp_path):
    rows = [
        {"ask": f"Say {i}.", "about": "", "reply": f"It is {i}.", "kind": "even" if i % 2 == 0 else "odd"}
        for i in range(12)
    ]
    rows[0]["about"] = "a number"
    file = write(tmp_path, "jsonl", "lines", rows)
    columns = ["ask", "about", "reply"]
    task = task_from("lines", jsonl=file, columns=columns, modality="causal", label="kind", held_out=0.25)
    assert (task.label_names, task.metric, task.too_long) == (("even", "odd"), "rouge_l", "leave_out")
    data = load_task(task)
    assert (len(data.train), len(data.evals["test"])) == (8, 4)
    assert task_from("plain", jsonl=file, columns=columns, modality="causal", held_out=0.25).num_labels == 1


def test_a_csv_of_instructions_has_empty_inputs_and_answers_of_digits(tmp_path):
    file = tmp_path / "sums.csv"
    file.write_text("ask,about,reply\nOne?,,007\nTwo?,Sums.,2\nThree?,,3\nFour?,,4\n")
    columns = ["ask", "about", "reply"]
    data = load_task(task_from("sums", csv=file, columns=columns, modality="causal", held_out=0.25))
    rows = {row for part in (data.train, data.evals["test"]) for row in zip(*part.columns, strict=True)}
    assert rows == {("One?", "", "007"), ("Two?", "Sums.", "2"), ("Three?", "", "3"), ("Four?", "", "4")}


def test_a_held_out_share_depends_on_the_examples_alone(tmp_path):
    def scored(rows):
        table = datasets.Dataset.from_list(rows)
        data = load_task(task_from("mine", dataset=table, **TICKETS, held_out=0.25, replace=True))
        assert not set(data.train.columns[0]) & set(data.evals["test"].columns[0])
        assert len(data.train) + len(data.evals["test"]) == len(rows)
        return set(data.evals["test"].columns[0])

    first = scored(ROWS)
    assert len(first) == 15
    assert scored(ROWS[::-1]) == first
    assert scored(ROWS + ROWS[:7]) == first  # equal examples stay together


@pytest.mark.parametrize("train", ["test", "all"])
def test_a_held_out_share_is_apart_whatever_the_split_is_called(tmp_path, monkeypatch, train):
    """The data set of a mirror has one split, which may be called as the scored part is."""
    (tmp_path / "datasets" / "some" / "set").mkdir(parents=True)
    write(tmp_path / "datasets" / "some" / "set", "parquet", train, ROWS)
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path))
    data = load_task(task_from("mine", hub="some/set", train=train, **TICKETS, held_out=0.25))
    assert (len(data.train), len(data.evals["test"])) == (45, 15)
    assert not set(data.train.columns[0]) & set(data.evals["test"].columns[0])


def test_the_key_of_handed_over_data_follows_what_is_held_out():
    def handed(first):
        column = [first, *(f"text {i}" for i in range(20))]
        given = Examples((column,), [i % 2 for i in range(21)])
        more = {"loader": lambda split: given, "held_out": 0.2}
        return Task("own", "text", ("a", "b"), ("x",), **more)

    same_training = {}
    for i in range(40):
        task = handed(f"other {i}")
        parts = load_task(dataclasses.replace(task, eval_splits={"test": "test"}))
        same_training.setdefault(tuple(parts.train.columns[0]), set()).add(fingerprint(task))
    assert max(map(len, same_training.values())) > 1


def test_the_key_of_several_scored_files_tells_which_is_which(tmp_path):
    a, b, train = (
        write(tmp_path, "csv", n, r) for n, r in zip("abt", (ROWS[:6], ROWS[6:12], ROWS), strict=True)
    )
    first, second = (
        task_from("mine", csv={"train": train, "x": a, "y": y, "z": b}, **TICKETS, register=False)
        for y in (a, b)
    )
    assert fingerprint(first) != fingerprint(second)


def test_the_key_follows_the_bytes_and_not_the_place(tmp_path):
    file = write(tmp_path / "here", "csv", "tickets", ROWS)
    task = task_from("tickets", csv=file, **TICKETS, held_out=0.2)
    before = fingerprint(task)
    (tmp_path / "there").mkdir()
    moved = Path(shutil.move(file, tmp_path / "there" / "other.csv"))
    with pytest.raises(FedloraError, match=r"there is no file .*here/tickets\.csv"):
        fingerprint(task)
    elsewhere = task_from("tickets", csv=moved, **TICKETS, held_out=0.2, replace=True)
    assert fingerprint(elsewhere) == before
    assert fingerprint(dataclasses.replace(elsewhere, held_out=0.3)) != before
    moved.write_text(moved.read_text().replace("number 3 ", "number 4 "))
    assert fingerprint(elsewhere) != before


def test_the_key_of_a_folder_of_images_follows_bytes_and_classes(tmp_path):
    folder = pictures(tmp_path / "shapes", {"a": 3, "b": 3})
    task = task_from("shapes", images=folder, held_out=0.4)
    before = fingerprint(task)
    shutil.copytree(folder, tmp_path / "copy")
    assert fingerprint(dataclasses.replace(task, files={"train": (str(tmp_path / "copy"),)})) == before
    (folder / "a" / "0.png").rename(folder / "b" / "9.png")
    assert fingerprint(task) != before


def description(task: str, backbone: str) -> dict:
    return {
        "model": {"backbone": backbone},
        "data": {"task": task},
        "method": {"name": "lora"},
        "local": {"lr": 0.1, "steps": 1, "batch_size": 4},
        "rounds": {"rounds": 1},
    }


# --- what cannot be a task


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "has no source"),
        ({"hub": "a/b", "dataset": 3}, "dataset and hub"),
        ({"dataset": [3]}, "holds a list and no datasets.Dataset"),
        ({"held_out": 0.2}, "names 0 columns .*\n.*there are text, queue, site"),
        ({"columns": ["text"] * 3, "held_out": 0.2}, "names 3 columns"),
        ({**TICKETS}, "nothing that is scored"),
        ({**TICKETS, "held_out": 2}, "held_out=2"),
        ({**TICKETS, "held_out": 0.2, "scored": "test"}, "held_out=0.2 and the scored test"),
        ({"columns": "text", "held_out": 0.2}, "has no column label; it has text, queue, site"),
        ({"columns": "text", "label": "one", "held_out": 0.2}, "has no column one"),
        ({"columns": "text", "label": "", "labels": ("a", "b"), "held_out": 0.2}, "no column of classes"),
        ({**TICKETS, "held_out": 0.2, "max_lenght": 3}, "unknown setting .*\n.*did you mean 'max_length'"),
        ({**TICKETS, "scored": "validation"}, "unknown split of task 'tickets' 'validation'"),
        ({**TICKETS, "train": "all", "scored": "train"}, "unknown split"),
    ],
)
def test_a_task_that_cannot_be_is_one_error_when_it_is_made(tmp_path, given, said):
    source = (
        {}
        if not given or {"hub", "dataset"} & given.keys()
        else {"csv": write(tmp_path, "csv", "tickets", ROWS)}
    )
    with pytest.raises((BadValue, UnknownName, FedloraError), match=said) as error:
        task_from("tickets", **source, **given)
    assert error.value.remedy
    assert "tickets" not in tasks.TASKS


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([1, 2, 3], "holds the labels 1 to 3.*\n.*subtract 1"),
        ([-1, 0, 1], "holds the labels -1 to 1"),
        ([0, 0, 0], "a single class"),
        ([0.5, 1.0, 0.0], "'0.5' in row 0, which is no label"),
        ([[0], [1], [0]], "which is no label"),
        ([0, None, 1], "is empty in row 1"),
    ],
)
def test_labels_that_number_no_classes(labels, said):
    table = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": labels})
    with pytest.raises(FedloraError, match=rf"task mine \(train\): column label .*{said}"):
        task_from("mine", dataset=table, columns="text", held_out=0.5)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"text": ["a", None, "c"]}, r"column text is empty in row 1 \(1 rows"),
        ({"text": [1, 2, 3]}, "column text holds a int"),
        ({"text": ["a", "b", "c"], "label": ["x", "y", "z"]}, "label has the unknown value 'z'"),
    ],
)
def test_values_that_cannot_be_used_name_file_column_and_row(rows, said):
    table = datasets.Dataset.from_dict({"label": ["x", "y", "x"], **rows})
    task = task_from("mine", dataset=table, columns="text", labels=("x", "y"), held_out=0.5)
    with pytest.raises(FedloraError, match=said) as error:
        load_task(task)
    assert "task mine (train)" in error.value.problem
    assert "fetch" not in error.value.remedy


@pytest.mark.parametrize(
    ("form", "text"), [("jsonl", "{"), ("parquet", "PAR1"), ("csv", 'a,b\n"x'), ("jsonl", "")]
)
def test_a_damaged_file_is_named(tmp_path, form, text):
    file = tmp_path / f"mine.{form}"
    file.write_text(text)
    with pytest.raises(FedloraError, match=r"mine\.\w+"):
        task_from("mine", **{form: file}, columns="text", held_out=0.5)


def test_names_and_places(tmp_path):
    with pytest.raises(BadValue, match="cannot name a task"):
        task_from("a|b", dataset=datasets.Dataset.from_list(ROWS), **TICKETS, held_out=0.2)
    with pytest.raises(FedloraError, match=r"there is no file .*lost\.csv"):
        task_from("lost", csv=tmp_path / "lost.csv", **TICKETS, labels=("a", "b"), held_out=0.2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FedloraError, match="empty holds no images in sub-folders"):
        task_from("empty", images=tmp_path / "empty", held_out=0.2)
    table = datasets.Dataset.from_list(ROWS)
    task_from("mine", dataset=table, **TICKETS, held_out=0.2)
    task_from("mine", dataset=table, **TICKETS, held_out=0.2)  # the same once more: a cell that is run again
    with pytest.raises(BadValue, match="already there"):
        task_from("mine", dataset=table, **TICKETS, held_out=0.3)
    with pytest.raises(BadValue, match="scored on its training split 'train'"):
        register_task(Task("self", "text", ("a", "b"), ("t",), eval_splits={"x": "train"}, hub_id="a/b"))


def test_scored_examples_that_are_trained_on_are_refused(tmp_path):
    files = {"train": write(tmp_path, "csv", "a", ROWS), "test": write(tmp_path, "csv", "b", ROWS[5:20])}
    task = task_from("mine", csv=files, **TICKETS)
    with pytest.raises(BadValue, match="all 15 examples of the scored split 'test' are among"):
        load_task(task)


# --- what does not fit a backbone


def own(column, scored, modality="text", **more):
    """The task "own" of four examples, and one that is scored."""
    parts = {"train": Examples((column,), [0, 1, 0, 1]), "validation": Examples((scored,), [0])}
    return register_task(
        Task("own", modality, ("a", "b"), ("x",), loader=parts.__getitem__, **more), replace=True
    )


@pytest.mark.parametrize(
    ("channels", "value", "said"),
    [
        (3, np.uint8(9), "3 channels, and the backbone reads 1\n.*grey=True.*dinov2"),
        (2, np.uint8(9), "2 channels"),
        (1, np.float32(255), "pixels from 255 to 255; .* -1 to 1\n.*uint8"),
        (1, np.float32(1.5), "pixels from 1.5 to 1.5"),
        (1, np.float32("nan"), "pixels from nan"),
    ],
)
def test_images_that_the_backbone_cannot_read(channels, value, said):
    own(np.full((4, channels, 8, 8), value), np.zeros((1, channels, 8, 8), value.dtype), "image")
    with pytest.raises(BadValue, match=f"task own: .*{said}"):
        load_data(DataSpec(task="own"), "kit/image-tiny")


def doubts(**spec) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_data(DataSpec(task="own", **spec), "kit/text-tiny")
    return [str(one.message) for one in caught]


def known() -> list[str]:
    """Four sentences that the kit's tokenizer knows."""
    return load_task(get_task("polarity")).train.columns[0][:4]


def test_texts_that_the_tokenizer_does_not_know_are_told_once_with_their_share():
    words = known()[0].split()[:2]
    own([*[" ".join(words)] * 3, "zyx wvu"], known()[:1])
    (said,) = doubts()
    assert "task own: 25 % of the tokens are unknown to kit/text-tiny" in said
    assert "sentence-transformers/all-MiniLM-L6-v2" in said
    assert doubts() == []  # once a process
    own(known(), ["another one"])
    assert doubts() == []  # what is scored is not trained on


def test_texts_that_are_cut_are_told_with_their_share():
    first, *others = known()
    own([f"{first} " * 50, *others], [f"{first} {first}"], max_length=24)
    (said,) = doubts()
    assert "25 % of the texts are longer than 24 tokens and are cut there" in said
    own(known(), [f"{first} {first}"], max_length=24)
    assert doubts() == []


@pytest.mark.parametrize(
    ("task", "backbone", "said"),
    [
        ("digits", "kit/text-tiny", "classifies images, and model 'kit/text-tiny' is not"),
        ("polarity", "kit/image-tiny", "classifies texts, and model 'kit/image-tiny' is not"),
        ("arithmetic", "kit/text-tiny", "a causal language model, and model"),
    ],
)
def test_a_task_for_another_kind_of_model_is_refused_with_the_description(task, backbone, said):
    with pytest.raises(BadValue, match=f"task '{task}' is .*{said}") as error:
        RunSpec.parse(description(task, backbone))
    assert "kit/" in error.value.remedy


def test_a_run_on_a_file_of_ones_own(tmp_path):
    from fedlora_kit.planning.amounts import amounts
    from fedlora_kit.running.many import run_all

    films = load_task(get_task("polarity")).train
    rows = [{"text": t, "label": int(y)} for t, y in zip(films.columns[0][:40], films.labels, strict=False)]
    task_from("films", csv=write(tmp_path, "csv", "films", rows), columns="text", held_out=0.25)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (done,) = run_all([RunSpec.parse(description("films", "kit/text-tiny"))], device="cpu")
    assert done.entry is not None
    assert done.entry.results["scores"]["test"]["examples"] == 10
    assert json.dumps(done.entry.provenance["data"]).startswith('"files:')
    planned = amounts(done.spec)
    assert (planned.train.count, planned.evals["test"].count, planned.known) == (30, 10, "data")


# --- tables


def tickets(classes: int = 3) -> Task:
    rows = [{"text": f"ticket {i}", "queue": f"q{i % classes}"} for i in range(60)]
    return task_from("tickets", dataset=datasets.Dataset.from_list(rows), **TICKETS, held_out=0.2)


def asks(group: str | None = "kind", **more) -> Task:
    rows = [{"ask": f"say {i}", "say": f"it is {i}", "kind": f"k{i % 3}"} for i in range(60)]
    table = datasets.Dataset.from_list(rows)
    columns = ["ask", "say"]
    return task_from(
        "asks", dataset=table, columns=columns, modality="causal", label=group, held_out=0.2, **more
    )


def test_every_table_that_fits_takes_a_task_of_ones_own():
    from fedlora_kit.papers.fed_hello import domainnet, grid, instructions, ledgar
    from fedlora_kit.papers.fedlora_optimizer import setting as flo
    from fedlora_kit.papers.fedlora_optimizer import tables
    from fedlora_kit.papers.ffa_lora import food101, gsm8k, table1

    tickets(), asks()
    text, causal = {"backbone": "kit/text-tiny"}, {"backbone": "kit/instruct-tiny"}
    s = table1.EXPERIMENT.setting("smoke", tasks=["tickets"], **text)
    assert {c.spec.data.task for c in table1.EXPERIMENT.grid(s)} == {"tickets"}
    made = grid.cells(
        grid.setting("fed-hello/table2", grid.PROFILES, "smoke", task="tickets", splits=["iid"], **text)
    )
    for item in (ledgar, domainnet):
        made += grid.cells(item.setting("smoke", task="tickets", splits=["iid"], **text))
    made += food101.grid(food101.setting("smoke", task="tickets", methods=["lora", "flora"], **text))
    assert {c.spec.data.task for c in made} == {"tickets"}
    made = instructions.cells(instructions.setting("dolly", "smoke", task="asks", **causal))
    made += tables.cells(tables.setting("fedlora-optimizer/global", "smoke", tasks=["asks"]))
    made += gsm8k.grid(gsm8k.setting("smoke", tasks=["asks"], methods=["lora"], prompt="plain", **causal))
    assert {c.spec.data.task for c in made} == {"asks"}
    assert flo.setting("x", "smoke", task="asks").clients == 3


def test_own_data_are_looked_at_before_anything_is_trained():
    from fedlora_kit.engines.own_data import doubts_beforehand

    asked = {"fed-hello/ledgar": {"task": "tickets", "splits": ["iid"], "seeds": 1}}
    assert doubts_beforehand("smoke", {"fed-hello/ledgar": {}}) == []
    tickets()
    (said,) = doubts_beforehand("smoke", asked)
    assert "of the tokens are unknown to kit/text-tiny" in said
    pixels = np.zeros((4, 3, 8, 8), np.uint8)
    own(pixels, pixels[:1] + 1, "image")
    with pytest.raises(BadValue, match="task own: the images have 3 channels"):
        doubts_beforehand("smoke", {"fed-hello/table2": {"task": "own", "splits": ["iid"]}})


def test_results_are_named_by_the_task_and_its_parts():
    from fedlora_kit.running.many import Finished
    from fedlora_kit.study.grid import Cell, results_frame

    tickets()
    cells = [
        Cell({}, {}, 0, RunSpec.parse(description(n, "kit/text-tiny"))) for n in ("tickets", "entailment")
    ]
    frame = results_frame([(one, Finished(one.spec, "", None)) for one in cells])
    assert frame["task"].tolist() == ["tickets", "entailment-matched", "entailment-mismatched"]


@pytest.mark.parametrize(
    ("table", "given", "said"),
    [
        ("table2", {"task": "tickets", "splits": ["pat_20"]}, "pat_20 gives a client 4 classes, .* has 3"),
        ("table2", {"task": "tickets", "splits": ["iid"], "backbone": "kit/image-tiny"}, "classifies texts"),
        ("table2", {"task": "asks"}, "about texts or images in classes, and task 'asks' is not"),
        ("table2", {"task": "digits_proxy"}, "no part that is scored"),
        ("table2", {"task": "tiket"}, "did you mean 'tickets'"),
        ("table1", {"tasks": ["many"]}, "'many' has 5 classes, and FFA-LoRA's label shares"),
        ("table1", {"tasks": ["asks"]}, "ffa-lora/table1 is about texts or images"),
        ("table1", {"tasks": ["digits"], "backbone": "kit/text-tiny"}, "'digits' has 10 classes"),
        ("dolly", {"task": "tickets"}, "about answers of a causal language model"),
        ("dolly", {"task": "plain"}, "split cat_2 deals examples out by category, and task 'plain' has none"),
        ("dolly", {"task": "numbers"}, "ROUGE-L, and task 'numbers' by its final number"),
        ("global", {"tasks": ["plain"]}, "split cat_1 deals examples out by category"),
        ("ablation", {"task": "plain"}, "one category a client deals examples out"),
        ("gsm8k", {"tasks": ["tickets"]}, "about answers"),
    ],
)  # fmt: skip
def test_a_task_that_does_not_fit_a_table_is_one_error_before_any_run(table, given, said):
    from fedlora_kit.papers.fed_hello import grid, instructions
    from fedlora_kit.papers.fedlora_optimizer import ablation, tables
    from fedlora_kit.papers.ffa_lora import gsm8k, table1

    many = dataclasses.replace(tickets(), name="many", label_names=tuple("abcde"))
    plain = dataclasses.replace(asks(), name="plain", label_column="", label_names=("answer",))
    for task in (many, plain, dataclasses.replace(plain, name="numbers", metric="final_number")):
        register_task(task)
    cells = {
        "table2": lambda: grid.cells(grid.setting("fed-hello/table2", grid.PROFILES, "smoke", **given)),
        "table1": lambda: table1.EXPERIMENT.grid(table1.EXPERIMENT.setting("smoke", **given)),
        "dolly": lambda: instructions.cells(instructions.setting("dolly", "smoke", **given)),
        "global": lambda: tables.cells(tables.setting("fedlora-optimizer/global", "smoke", **given)),
        "ablation": lambda: ablation.setting("fedlora-optimizer/ablation", "smoke", **given),
        "gsm8k": lambda: gsm8k.grid(gsm8k.setting("smoke", **given)),
    }
    with pytest.raises((BadValue, UnknownName), match=said) as error:
        cells[table]()
    assert error.value.remedy


def test_a_prompt_with_two_answers_lies_on_one_side(tmp_path):
    rows = [{"ask": f"Say {i}.", "reply": f"{i} {turn}"} for i in range(8) for turn in ("once", "twice")]
    file = write(tmp_path, "jsonl", "twice", rows)
    data = load_task(
        task_from("twice", jsonl=file, columns=["ask", "reply"], modality="causal", held_out=0.25)
    )
    asked = [set(part.columns[0]) for part in (data.train, data.evals["test"])]
    assert [len(part) for part in asked] == [6, 2]
    assert not asked[0] & asked[1]
