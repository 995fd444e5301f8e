"""`fedlora fetch` against the stand-in of the Hub: whole profiles, what cannot be had, faults by status."""

from functools import lru_cache

import hub_profiles
import pytest
from typer.testing import CliRunner

from fedlora_kit import mirror
from fedlora_kit.batch.fetch import STAGING, fetch, look
from fedlora_kit.batch.fetch_plan import Piece
from fedlora_kit.batch.hub_source import HubSource
from fedlora_kit.cli import app
from fedlora_kit.cli import fetch as command
from fedlora_kit.data.sources import load_task
from fedlora_kit.data.tasks import get_task
from fedlora_kit.models.backbones import backbone, load_backbone
from fedlora_kit.models.tokenizer import load_tokenizer

GATED, PROXIES = "meta-llama/Llama-2-7b-hf", "TNILab/cifar100_proxydata"
ROBERTA, DOLLY, SST2 = "FacebookAI/roberta-base", "databricks/databricks-dolly-15k", "nyu-mll/glue"

PLAN = command._wanted


@lru_cache
def needed(profile):
    return PLAN(None, profile, None)


@pytest.fixture
def profiles(hub_server, monkeypatch):
    """The stand-in with all pieces; a profile is planned once."""
    hub_profiles.serve(hub_server)
    monkeypatch.setattr(command, "_wanted", lambda items, profile, settings: needed(profile))
    return hub_server


def run(hub, profile, *more):
    return CliRunner().invoke(app, ["fetch", "--profile", profile, "--to", str(hub), *more])


def piece(name, kind="model"):
    if kind == "model":
        return Piece("model", name, backbone(name).revision)
    task = get_task(name)
    return Piece("dataset", task.hub_id, task.revision, task)


def bring(hub, pieces):
    survey = look(pieces, HubSource(), hub)
    return survey, *fetch(survey.jobs, hub, HubSource(), lambda _: None)


def test_both_profiles_are_fetched_whole_and_load(profiles, tmp_path, monkeypatch):
    hub = tmp_path / "hub"
    for profile in ("paper", "small"):
        done = run(hub, profile)
        assert done.exit_code == 0, done.output
        assert "the mirror has all of it" in done.output
    assert not (hub / STAGING).exists()
    commits = {record["from"]["revision"] for record in mirror.listed(hub).values()}
    pinned = {p.revision for profile in ("paper", "small") for p in needed(profile).pieces}
    assert pinned - {""} <= commits
    asked = len(profiles.requests)
    again = run(hub, "paper", "--dry-run")
    assert again.exit_code == 0, again.output
    assert "0 B to fetch" in again.output
    assert not any("/resolve/" in path for _, path in profiles.requests[asked:])

    profiles.close()  # from here on there is the mirror alone
    monkeypatch.setenv("FEDLORA_HUB", str(hub))
    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path / "home"))
    for each in {p.title: p for name in ("paper", "small") for p in needed(name).pieces}.values():
        if each.task is not None:
            data = load_task(each.task)
            assert len(data.train) > 0
            continue
        load_backbone(each.repo, 2, 0)
        if backbone(each.repo).kind != "image":
            load_tokenizer(each.repo)
