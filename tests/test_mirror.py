"""A mirror's list of digests: what it lists is compared before it is read."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from fedlora_kit import mirror
from fedlora_kit.data.sources import fingerprint, load_task
from fedlora_kit.data.tasks import get_task
from fedlora_kit.errors import FedloraError
from fedlora_kit.models.backbones import backbone_fingerprint, load_backbone

KIT = Path(__file__).resolve().parent.parent / "data" / "backbones" / "text-tiny"
TABLE = "datasets/nyu-mll/glue/sst2/train.parquet"
WEIGHTS = "models/somebody/small/model.safetensors"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A mirror with SST-2's form of data and one model, both listed."""
    hub = tmp_path / "hub"
    for split in ("train", "validation"):
        file = hub / "datasets/nyu-mll/glue/sst2" / f"{split}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"sentence": [f"{split} {n}" for n in range(6)], "label": [0, 1] * 3}).to_parquet(file)
    shutil.copytree(KIT, hub / "models/somebody/small")
    write_list(hub)
    monkeypatch.setenv("FEDLORA_HUB", str(hub))
    return hub


def write_list(hub, **changes):
    files = {
        p.relative_to(hub).as_posix(): {"bytes": p.stat().st_size, "sha256": mirror.file_sha256(p)}
        for p in hub.rglob("*")
        if p.is_file() and p.name != mirror.LIST
    }
    (hub / mirror.LIST).write_text(json.dumps({"format": 1, "files": {**files, **changes}}))


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def test_what_fits_is_read(hub):
    assert len(load_task(get_task("sst2")).train) == 6
    load_backbone("somebody/small", 2, 0)


def test_one_flipped_bit_of_data_is_refused(hub):
    flip(hub / TABLE)
    for read in (load_task, fingerprint):
        with pytest.raises(FedloraError, match=r"sst2/train\.parquet is damaged.*DIGESTS"):
            read(get_task("sst2"))


def test_one_flipped_bit_of_weights_is_refused(hub):
    flip(hub / WEIGHTS)
    with pytest.raises(FedloraError, match="fedlora fetch"):
        load_backbone("somebody/small", 2, 0)


def test_a_listed_file_that_is_missing_is_refused(hub):
    (hub / "models/somebody/small/tokenizer.json").unlink()
    with pytest.raises(FedloraError, match=r"no models/somebody/small/tokenizer\.json"):
        load_backbone("somebody/small", 2, 0)


def test_what_is_not_listed_or_has_no_list_is_read_as_it_is(hub):
    (hub / mirror.LIST).write_text(json.dumps({"format": 1, "files": {}}))
    flip_free = load_task(get_task("sst2"))
    assert len(flip_free.train) == 6
    (hub / mirror.LIST).unlink()
    assert mirror.listed(hub) == {}
    load_backbone("somebody/small", 2, 0)


@pytest.mark.parametrize("text", ["", "[]", '{"files": 3}', '{"files": {"a": {}}}', "\0"])
def test_a_list_that_cannot_be_read_is_refused(hub, text):
    (hub / mirror.LIST).write_text(text)
    with pytest.raises(FedloraError, match="DIGESTS"):
        load_task(get_task("sst2"))


def test_a_list_cannot_name_files_elsewhere(hub):
    write_list(hub, **{"models/somebody/small/../../../x": {"bytes": 1, "sha256": "0"}})
    with pytest.raises(FedloraError, match=r"'\.\.'"):
        load_backbone("somebody/small", 2, 0)


def test_a_file_that_changes_is_looked_at_again(hub):
    before = backbone_fingerprint("somebody/small")
    (hub / mirror.LIST).unlink()
    flip(hub / WEIGHTS)
    assert backbone_fingerprint("somebody/small") != before


def test_files_outside_the_mirror_are_not_its_business(hub, tmp_path):
    own = tmp_path / "own.txt"
    own.write_text("x")
    mirror.check(own)
    mirror.check_folder(tmp_path)
