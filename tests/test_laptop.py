"""The profile `laptop`: real models and real data, on a mirror that may name stand-ins for the models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fedlora_kit.data.tasks import get_task
from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.models import load_backbone
from fedlora_kit.models.names import backbone_folder
from fedlora_kit.models.targets import head_modules
from fedlora_kit.papers import laptop
from fedlora_kit.papers.fed_hello import grid
from fedlora_kit.papers.items import ITEMS
from fedlora_kit.papers.runs_of import planned_runs

OF_PAPERS = [item.id for item in ITEMS if item.paper]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror with one model's configuration, which is nobody's."""
    folder = tmp_path / "models/org/other"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "vit"}')
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("item", OF_PAPERS)
def test_every_item_runs_on_real_models_data_and_five_seeds(
    item: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FEDLORA_HUB", raising=False)
    specs = planned_runs(item, "laptop").specs()
    for spec in specs:
        assert spec.model.backbone in {laptop.TEXT, laptop.IMAGE, laptop.LANGUAGE}
        assert get_task(spec.data.task).hub_id
        assert spec.seed < 1000 or spec.data.holdout > 0  # tuning seeds score examples that are held out
    reported = {spec.seed for spec in specs if spec.seed < 1000}
    assert reported in (set(), set(laptop.SEEDS))  # none where all reported runs wait for a choice


def test_a_mirror_names_stand_ins(hub: Path) -> None:
    before = grid.setting("fed-hello/table2", grid.PROFILES, "laptop")
    (hub / "STAND_INS.json").write_text(json.dumps({laptop.IMAGE: "org/other"}))
    after = grid.setting("fed-hello/table2", grid.PROFILES, "laptop")
    assert (before.backbone, after.backbone) == (laptop.IMAGE, "org/other")
    asked = grid.setting("fed-hello/table2", grid.PROFILES, "laptop", backbone=laptop.IMAGE)
    assert asked.backbone == laptop.IMAGE  # what is asked for by name is not replaced
    (hub / "models" / laptop.IMAGE).mkdir(parents=True)
    assert grid.setting("fed-hello/table2", grid.PROFILES, "laptop").backbone == laptop.IMAGE


def test_a_mirror_without_a_model_says_which_it_has(hub: Path) -> None:
    with pytest.raises(FedloraError, match=r"(?s)no models/facebook/dinov2-small.*STAND_INS.*org/other"):
        backbone_folder(laptop.IMAGE)


@pytest.mark.parametrize("text", ["[", "[]", '"x"'])
def test_a_list_of_stand_ins_that_cannot_be_read(hub: Path, text: str) -> None:
    (hub / "STAND_INS.json").write_text(text)
    with pytest.raises(FedloraError, match="STAND_INS.json cannot be read"):
        grid.setting("fed-hello/table2", grid.PROFILES, "laptop")


def test_the_heads_scale() -> None:
    plain, wide = (load_backbone("kit/text-tiny", 2, 7, head_scale=scale) for scale in (None, 0.2))
    own = plain.config.initializer_range
    for part in head_modules(plain):
        for name, small in getattr(plain, part).named_parameters():
            large = dict(getattr(wide, part).named_parameters())[name]
            torch.testing.assert_close(large, small * (0.2 / own))
    a, b = (dict(m.named_parameters()) for m in (plain, wide))
    heads = tuple(f"{part}." for part in head_modules(plain))
    assert all(torch.equal(a[n], b[n]) for n in a if not n.startswith(heads))
    with pytest.raises(BadValue, match="head_scale"):
        RunSpec.parse({"model": {"backbone": "kit/text-tiny", "head_scale": 0}, "data": {"task": "polarity"}})
