"""Sources, encoding and batches."""

import doctest

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import text_data

from fedlora_kit.data import batches, tasks
from fedlora_kit.data.batches import physical_batches, poisson_batches, shuffled_batches
from fedlora_kit.data.encoded import EncodedImages
from fedlora_kit.data.sources import fingerprint, load_task
from fedlora_kit.data.task import Examples, Task
from fedlora_kit.data.tasks import TASKS, register_task
from fedlora_kit.errors import BadValue, FedloraError, UnknownName

CPU = torch.device("cpu")


def test_doctests():
    assert doctest.testmod(batches).failed == 0


# --- batches -------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 30), st.integers(0, 5))
def test_shuffled_batches_are_distinct_and_fair(n, size, steps, seed):
    seen = np.zeros(n, dtype=int)
    for batch in shuffled_batches(n, size, steps, np.random.default_rng(seed)):
        assert len(batch) == min(n, size) == len(np.unique(batch))
        seen[batch] += 1
    assert seen.sum() == steps * min(n, size)
    assert seen.max() - seen.min() <= 1 + (n % min(n, size) != 0)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=50), st.integers(1, 200), st.randoms())
def test_physical_batches_cut_a_logical_batch_without_loss(lengths, budget, random):
    lengths = np.array(lengths)
    logical = np.array(
        sorted(random.sample(range(len(lengths)), random.randint(0, len(lengths)))), dtype=np.int64
    )
    pieces = physical_batches(lengths, logical, budget)
    together = np.concatenate(pieces) if pieces else np.empty(0, int)
    assert sorted(together) == logical.tolist()
    for piece in pieces:
        assert len(piece) == 1 or len(piece) * lengths[piece].max() <= budget


def test_poisson_batches_have_the_binomial_sizes():
    sizes = np.array([len(b) for b in poisson_batches(50, 0.1, 4000, seed=3)])
    assert abs(sizes.mean() - 5) < 0.2
    assert abs(sizes.var() - 4.5) < 0.5
    assert (sizes == 0).any()  # empty batches do happen
    again = [b.tolist() for b in poisson_batches(50, 0.1, 5, seed=3)]
    assert again == [b.tolist() for b in poisson_batches(50, 0.1, 5, seed=3)]


def test_impossible_batches():
    with pytest.raises(BadValue, match="0 examples"):
        next(shuffled_batches(0, 4, 1, np.random.default_rng(0)))


# --- encoded data --------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 12), st.randoms())
def test_batch_is_padded_to_its_own_longest(n, random):
    encoded = text_data(n, seed=random.randint(0, 99))
    chosen = np.array(random.choices(range(n), k=random.randint(1, 8)), dtype=np.int64)
    inputs, labels = encoded.batch(chosen, CPU)
    assert labels.tolist() == encoded.labels[chosen].tolist()
    assert inputs["input_ids"].shape[1] == encoded.lengths[chosen].max()
    flat = encoded.fields["input_ids"]
    masks = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))  # left out where all is 1
    for row, mask, i in zip(inputs["input_ids"], masks, chosen, strict=True):
        tokens = flat[encoded.offsets[i] : encoded.offsets[i + 1]].tolist()
        assert row.tolist() == tokens + [1] * (len(row) - len(tokens))
        assert mask.tolist() == [1] * len(tokens) + [0] * (len(row) - len(tokens))


@given(st.integers(1, 12), st.randoms())
def test_subset_equals_taking_from_the_whole(n, random):
    encoded = text_data(n, seed=1)
    chosen = np.array(random.sample(range(n), random.randint(1, n)), dtype=np.int64)
    part = encoded.subset(chosen)
    whole, _ = encoded.batch(chosen, CPU)
    own, _ = part.batch(np.arange(len(part)), CPU)
    assert torch.equal(whole["input_ids"], own["input_ids"])
    assert part.labels.tolist() == encoded.labels[chosen].tolist()


def test_images():
    images = EncodedImages(torch.arange(12.0).reshape(3, 1, 2, 2), np.array([2, 1, 0]))
    inputs, labels = images.batch(np.array([2, 0]), CPU)
    assert inputs["pixel_values"][0, 0, 0, 0] == 8
    assert labels.tolist() == [0, 2]
    assert images.subset(np.array([1])).labels.tolist() == [1]


# --- sources -------------------------------------------------------------------------------------


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    hub = tmp_path / "hub"
    folder = hub / "datasets" / "nyu-mll" / "glue" / "sst2"
    folder.mkdir(parents=True)
    for split, n in (("train", 6), ("validation", 4)):
        rows = {
            "sentence": [f"a film {i}" for i in range(n)],
            "label": [i % 2 for i in range(n)],
            "idx": list(range(n)),
        }
        datasets.Dataset.from_dict(rows).to_parquet(str(folder / f"{split}.parquet"))
    monkeypatch.setenv("FEDLORA_HUB", str(hub))
    return folder


def test_a_mirror_is_read(mirror):
    loaded = load_task(tasks.get_task("sst2"))
    assert len(loaded.train) == 6
    assert loaded.train.columns[0][1] == "a film 1"
    assert loaded.evals["validation"].labels.tolist() == [0, 1, 0, 1]


def test_a_missing_piece_names_the_id_and_both_remedies(mirror):
    (mirror / "train.parquet").unlink()
    with pytest.raises(
        FedloraError, match=r"datasets/nyu-mll/glue/sst2/train.parquet.*nyu-mll/glue"
    ) as error:
        load_task(tasks.get_task("sst2"))
    assert "FEDLORA_HUB" in error.value.remedy
    assert "unset" in error.value.remedy
    with pytest.raises(FedloraError, match="train.parquet"):
        fingerprint(tasks.get_task("sst2"))


def test_a_damaged_file_is_one_clear_error(mirror):
    file = mirror / "train.parquet"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(FedloraError, match="damaged"):
        load_task(tasks.get_task("sst2"))


@pytest.mark.parametrize("column", ["sentence", "label"])
def test_an_empty_cell_is_named_and_never_trained_on(mirror, column):
    rows = {"sentence": ["a", "b", "c"], "label": [0, 1, 0]}
    rows[column][1] = None
    datasets.Dataset.from_dict(rows).to_parquet(str(mirror / "train.parquet"))
    with pytest.raises(FedloraError, match=rf"column {column} is empty in row 1 \(1 rows"):
        load_task(tasks.get_task("sst2"))


def test_a_file_of_another_data_set_is_refused(mirror):
    datasets.Dataset.from_dict({"text": ["x"], "label": [0]}).to_parquet(str(mirror / "train.parquet"))
    with pytest.raises(FedloraError, match="no column sentence"):
        load_task(tasks.get_task("sst2"))


def test_unlabelled_examples_are_refused(mirror):
    datasets.Dataset.from_dict({"sentence": ["x"], "label": [-1]}).to_parquet(str(mirror / "train.parquet"))
    with pytest.raises(FedloraError, match=r"labels -1\.\.-1"):
        load_task(tasks.get_task("sst2"))


def test_the_fingerprint_follows_the_bytes(mirror):
    before = fingerprint(tasks.get_task("sst2"))
    assert before == fingerprint(tasks.get_task("sst2"))
    datasets.Dataset.from_dict({"sentence": ["y"], "label": [1]}).to_parquet(str(mirror / "train.parquet"))
    assert fingerprint(tasks.get_task("sst2")) != before


def test_the_callers_own_examples(monkeypatch):
    monkeypatch.setattr(tasks, "TASKS", dict(TASKS))
    rows = Examples((["good", "bad", "fair"],), np.array([1, 0, 1]))
    parts = {"train": rows, "validation": rows.take(np.array([2]))}
    mine = register_task(Task("mine", "text", ("no", "yes"), ("sentence",), loader=parts.__getitem__))
    other = Task("mine", "text", ("no", "yes"), ("sentence",), loader=lambda s: rows.take(np.array([1, 0])))
    assert fingerprint(mine) != fingerprint(other)
    assert register_task(mine) is mine
    with pytest.raises(BadValue, match="already"):
        register_task(other)
    with pytest.raises(BadValue, match="all 1 examples of the scored split 'validation' are among"):
        load_task(mine)
    parts["validation"] = Examples((["fair", "poor"],), np.array([1, 0]))
    assert load_task(mine).train is rows
    with pytest.raises(UnknownName, match="mnli"):
        tasks.get_task("mnlii")


def test_examples_check_their_lengths():
    with pytest.raises(BadValue, match="differ in length"):
        Examples((["a"],), np.array([0, 1]))


@pytest.mark.parametrize("name", sorted(t for t in TASKS if TASKS[t].loader))
def test_built_in_tasks_load_and_fit_their_description(name):
    loaded = load_task(TASKS[name])
    for part in (loaded.train, *loaded.evals.values()):
        assert len(part.columns) == len(TASKS[name].columns)
        assert set(part.labels) == set(range(TASKS[name].num_labels))
