"""Round checkpoints: bit by bit what was saved, or not used at all."""

from __future__ import annotations

import errno
import json
import math
import os
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.experiments import atomic
from fedlora_kit.experiments.atomic import DamageWarning, from_json, to_json
from fedlora_kit.experiments.checkpoints import CheckpointFolder

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool]


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def folder_with(path: Path, *rounds: int) -> CheckpointFolder:
    folder = CheckpointFolder(path)
    for index in rounds:
        folder.save(index, {"b": torch.full((2,), float(index))}, {"round": index})
    return folder


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(0, 4), max_size=3),
    seed=st.integers(0, 2**31),
)
def test_any_bit_pattern_comes_back(tmp_path_factory, dtype, shape, seed):
    count = math.prod(shape) * torch.empty((), dtype=dtype).element_size()
    data = np.random.default_rng(seed).integers(0, 2 if dtype == torch.bool else 256, count, dtype=np.uint8)
    tensor = torch.from_numpy(data).view(dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype)
    folder = CheckpointFolder(tmp_path_factory.mktemp("c"))
    folder.save(3, {"x": tensor, "scalar": torch.tensor(seed)}, {})
    loaded = folder.load_latest()
    assert loaded.round_index == 3
    assert loaded.tensors["x"].dtype == dtype
    assert loaded.tensors["x"].shape == tensor.shape
    assert raw(loaded.tensors["x"]) == raw(tensor)
    assert loaded.tensors["scalar"].shape == ()
    assert loaded.tensors["scalar"].item() == seed


# "__float__" is refused, which another test shows; the generator likes to draw strings from the source.
keys = st.text().filter(lambda text: text != "__float__")
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**140), 2**140) | st.floats(width=64) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)


def same(one: object, two: object) -> bool:
    if isinstance(one, float) and isinstance(two, float):
        both_nan = math.isnan(one) and math.isnan(two)
        return both_nan or struct.pack("<d", one) == struct.pack("<d", two)
    if isinstance(one, dict) and isinstance(two, dict):
        return list(one) == list(two) and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(same, one, two))
    return type(one) is type(two) and one == two


@settings(max_examples=60, deadline=None)
@given(meta=st.dictionaries(keys, values, max_size=4))
def test_meta_comes_back_exactly(tmp_path_factory, meta):
    folder = CheckpointFolder(tmp_path_factory.mktemp("c"))
    folder.save(0, {}, meta)
    loaded = folder.load_latest()
    assert same(loaded.meta, meta)
    assert loaded.tensors == {}


def test_json_text_is_strict_and_exact():
    text = to_json({"nan": float("nan"), "inf": -math.inf, "tenth": 0.1, "zero": -0.0})
    strict = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert strict["inf"] == {"__float__": "-inf"}
    back = from_json(text)
    assert math.isnan(back["nan"])
    assert back["inf"] == -math.inf
    assert math.copysign(1, back["zero"]) == -1


@pytest.mark.parametrize(
    ("bad", "place"),
    [
        ({"a": {"b": [1, np.int64(2)]}}, r"value\['a'\]\['b'\]\[1\] is a int64"),
        ({"a": torch.zeros(1)}, r"value\['a'\] is a Tensor"),
        ({1: 2}, "has the key 1"),
        ({"x": {"__float__": "nan"}}, "__float__"),
    ],
)
def test_meta_that_would_change_is_refused(tmp_path, bad, place):
    folder = folder_with(tmp_path, 0)
    with pytest.raises(BadValue, match=place):
        folder.save(1, {}, bad)
    assert folder.rounds() == [0]


def test_views_shared_and_strided_tensors_are_written_as_they_look(tmp_path):
    flat = torch.arange(12.0)
    tensors = {
        "a": flat[:6].view(2, 3),
        "t": flat.view(3, 4).T,
        "same": flat,
        "grad": flat.clone().requires_grad_(),
    }
    folder = CheckpointFolder(tmp_path)
    folder.save(0, tensors, {})
    flat.zero_()  # the file must not depend on the memory any more
    loaded = folder.load_latest().tensors
    assert torch.equal(loaded["a"], torch.arange(6.0).view(2, 3))
    assert torch.equal(loaded["t"], torch.arange(12.0).view(3, 4).T)
    loaded["same"] += 1  # and is writable, and nobody else's
    assert torch.equal(loaded["t"], torch.arange(12.0).view(3, 4).T)


def test_generators_go_on_where_they_were(tmp_path):
    numpy_generator, torch_generator = np.random.default_rng(7), torch.Generator().manual_seed(7)
    numpy_generator.normal(size=5), torch.randn(5, generator=torch_generator)
    folder = CheckpointFolder(tmp_path)
    meta = {"numpy": numpy_generator.bit_generator.state}
    folder.save(0, {"torch": torch_generator.get_state()}, meta)
    expected = numpy_generator.normal(size=3), torch.randn(3, generator=torch_generator)
    loaded = folder.load_latest()
    again = np.random.default_rng(0)
    again.bit_generator.state = loaded.meta["numpy"]
    assert (again.normal(size=3) == expected[0]).all()
    other = torch.Generator()
    other.set_state(loaded.tensors["torch"])
    assert torch.equal(torch.randn(3, generator=other), expected[1])


def test_the_newest_two_stay_and_the_file_is_plain_safetensors(tmp_path):
    folder = folder_with(tmp_path / "made" / "on" / "demand", 0, 1, 2, 7)
    assert sorted(os.listdir(folder.folder)) == ["round-000002.safetensors", "round-000007.safetensors"]
    with safe_open(folder.path(7), "pt") as file:
        assert json.loads(file.metadata()["meta"]) == {"round": 7}
        assert file.get_tensor("b").tolist() == [7.0, 7.0]


def test_the_same_round_again_replaces_and_an_earlier_one_rewinds(tmp_path):
    folder = folder_with(tmp_path, 3, 4)
    folder.save(4, {}, {"again": True})
    assert folder.load_latest().meta == {"again": True}
    folder.save(3, {}, {"rewound": True})
    assert folder.rounds() == [3]
    assert folder.load_latest().meta == {"rewound": True}


def test_nothing_there(tmp_path):
    assert CheckpointFolder(tmp_path / "no").load_latest() is None
    assert CheckpointFolder(tmp_path / "no").rounds() == []


def test_leftover_of_a_killed_writer_is_ignored_and_removed(tmp_path):
    folder = folder_with(tmp_path, 1)
    for name in (".round-000002.safetensors.123.0123abcd.tmp", ".round-000001.safetensors.9.ffffffff.tmp"):
        (tmp_path / name).write_bytes(folder.path(1).read_bytes()[:40])
    (tmp_path / "notes.tmp").write_text("somebody's own")
    assert folder.load_latest().round_index == 1
    assert sorted(os.listdir(tmp_path)) == ["notes.tmp", "round-000001.safetensors"]


def test_every_flipped_bit_and_every_truncation_is_noticed(tmp_path):
    folder = folder_with(tmp_path, 4, 5)
    good, path = folder.path(5).read_bytes(), folder.path(5)
    damaged = [good[:i] + bytes([good[i] ^ (1 << (i % 8))]) + good[i + 1 :] for i in range(len(good))]
    damaged += [good[:length] for length in range(0, len(good), 7)] + [good + b"\0", b""]
    for content in damaged:
        path.write_bytes(content)
        with pytest.warns(DamageWarning, match=r"round-000005\.safetensors is damaged"):
            loaded = folder.load_latest()
        assert (loaded.round_index, loaded.meta) == (4, {"round": 4})
        aside = tmp_path / "round-000005.safetensors.damaged"
        assert aside.read_bytes() == content  # kept as it was
        aside.unlink()


def test_two_damaged_ones_are_both_kept(tmp_path):
    folder = folder_with(tmp_path, 4, 5)
    for index in (4, 5):
        folder.path(index).write_bytes(b"rubbish")
    with pytest.warns(DamageWarning) as seen:
        assert folder.load_latest() is None
    assert len(seen) == 2
    folder.save(5, {}, {})
    folder.path(5).write_bytes(b"rubbish again")
    with pytest.warns(DamageWarning, match=r"kept as round-000005\.safetensors\.2\.damaged"):
        folder.load_latest()
    assert len([name for name in os.listdir(tmp_path) if name.endswith(".damaged")]) == 3


def test_a_renamed_checkpoint_is_not_taken_for_another_round(tmp_path):
    folder = folder_with(tmp_path, 1, 2)
    os.rename(folder.path(2), folder.path(9))
    with pytest.warns(DamageWarning, match="it holds round 2"):
        assert folder.load_latest().round_index == 1


def test_names_that_look_like_the_digest_do_not_confuse_it(tmp_path):
    trap = '"sha256":"' + "a" * 64 + '"'
    folder = CheckpointFolder(tmp_path)
    folder.save(0, {trap: torch.ones(1), "sha256": torch.ones(2)}, {trap: trap})
    loaded = folder.load_latest()
    assert loaded.meta == {trap: trap}
    assert loaded.tensors.keys() == {trap, "sha256"}


def test_bad_input(tmp_path):
    folder = CheckpointFolder(tmp_path)
    with pytest.raises(BadValue, match="round_index is -1"):
        folder.save(-1, {}, {})
    with pytest.raises(BadValue, match="meta is a list"):
        folder.save(0, {}, [])
    with pytest.raises(BadValue, match="'s' cannot be kept"):
        folder.save(0, {"s": torch.eye(2).to_sparse()}, {})
    assert folder.rounds() == []


@pytest.mark.parametrize("step", ["fsync", "replace", "fdopen"])
def test_full_disk_keeps_the_earlier_checkpoint(tmp_path, monkeypatch, step):
    folder = folder_with(tmp_path, 1)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, step, full)
        with pytest.raises(FedloraError, match=r"no space left .*round-000002(.|\n)*FEDLORA_RUNS"):
            folder.save(2, {"b": torch.ones(3)}, {})
    assert os.listdir(tmp_path) == ["round-000001.safetensors"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert folder.load_latest().round_index == 1
