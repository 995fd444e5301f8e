"""`fedlora fetch` against the stand-in of the Hub: whole profiles, what cannot be had, faults by status."""

import errno
import json
import re
import socket
import time
from pathlib import Path

import datasets
import hub_contents
import hub_profiles
import huggingface_hub
import pandas as pd
import pytest
from hub_server import HEAD
from typer.testing import CliRunner

from fedlora_kit import mirror
from fedlora_kit.cli import app
from fedlora_kit.cli import fetch as command
from fedlora_kit.data.sources import load_task
from fedlora_kit.data.task import Task
from fedlora_kit.data.tasks import get_task
from fedlora_kit.errors import FedloraError
from fedlora_kit.fetching import hub_source
from fedlora_kit.fetching import tables as fetch_tables
from fedlora_kit.fetching.fetch import PATIENCE, STAGING, fetch, look
from fedlora_kit.fetching.hub_source import HubSource
from fedlora_kit.fetching.plan import Chore, Piece, Wanted
from fedlora_kit.hub_errors import Unreachable
from fedlora_kit.models.backbones import load_backbone
from fedlora_kit.models.names import BACKBONES, backbone
from fedlora_kit.models.tokenizer import load_tokenizer

GATED, ROBERTA = "meta-llama/Llama-2-7b-hf", "FacebookAI/roberta-base"
DOLLY, GLUE = "databricks/databricks-dolly-15k", "nyu-mll/glue"


@pytest.fixture
def profiles(hub_server, monkeypatch):
    """The stand-in with all pieces, and what each profile needs, planned once."""
    hub_profiles.serve(hub_server)
    with monkeypatch.context() as here:
        here.delenv("FEDLORA_HOME")  # the notebooks are in the repository
        needed = {profile: command._wanted(None, profile, None) for profile in ("small", "paper")}
    monkeypatch.setattr(command, "_wanted", lambda items, profile, settings: needed[profile])
    return hub_server, needed


def run(hub, profile="paper", *more):
    return CliRunner().invoke(app, ["fetch", "--profile", profile, "--to", str(hub), *more])


def piece(name):
    if name in BACKBONES:
        return Piece("model", name, backbone(name).revision)
    task = get_task(name)
    return Piece("dataset", task.hub_id, task.revision, task)


@pytest.fixture
def want(monkeypatch):
    """Make the command want these pieces (models and tasks by name) instead of those of a profile."""

    def these(*names):
        pieces = tuple(map(piece, names))
        monkeypatch.setattr(command, "_wanted", lambda *_: Wanted(pieces, ()))

    return these


def files_below(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def add(server, *names):
    for name in names:
        where = piece(name)
        files = hub_profiles.models().get(name) or hub_profiles.data_sets()[name]
        server.add(where.repo, files, commit=where.revision or HEAD, kind=where.kind)


# --- whole profiles


def test_both_profiles_are_fetched_whole_and_load(profiles, tmp_path, monkeypatch):
    """Small at once; paper with a gated and a missing piece, then cured."""
    hub = tmp_path / "hub"
    server, needed = profiles
    done = run(hub, "small")
    assert done.exit_code == 0, done.output
    assert "the mirror has all of it" in done.output
    assert not (hub / STAGING).exists()

    server.repositories["models", GATED].gated = True
    food = server.repositories.pop(("datasets", "ethz/food101"))
    for dry in (("--dry-run",), ()):
        before = files_below(hub)
        half = run(hub, "paper", *dry)
        assert half.exit_code == 1
        assert "2 of 17 pieces cannot be had" in half.output
        gated = rf"{GATED}.* asks for an agreement first\n.*accept it on \S+/{GATED}, and log in"
        assert re.search(gated, half.output)
        assert re.search(r"ethz/food101.* is not on the Hub", half.output)
        assert (files_below(hub) == before) == bool(dry)
    wanted = {p.repo for p in needed["paper"].pieces}
    there = {record["from"]["repo"] for record in mirror.listed(hub).values()}
    assert wanted - there == {GATED, "ethz/food101"}
    assert not (hub / STAGING).exists()

    monkeypatch.setenv("HF_TOKEN", server.valid_token)
    server.repositories["datasets", "ethz/food101"] = food
    asked = len(server.requests)
    whole = run(hub, "paper")
    assert whole.exit_code == 0, whole.output
    downloads = [path for _, path in server.requests[asked:] if "/resolve/" in path]
    assert downloads
    assert all(GATED in path or "ethz/food101" in path for path in downloads)

    server.close()  # from here on there is the mirror alone
    monkeypatch.setenv("FEDLORA_HUB", str(hub))
    for each in {p.title: p for name in ("paper", "small") for p in needed[name].pieces}.values():
        if each.task is not None:
            assert len(load_task(each.task).train) > 0
            continue
        load_backbone(each.repo, 2, 0)
        if not each.repo.startswith("google/vit"):
            load_tokenizer(each.repo)


# --- image folders


def test_an_image_folder_becomes_what_datasets_makes_of_it(hub_server, tmp_path, monkeypatch):
    files = {
        f"{split}/{name}/{file}": hub_contents.picture(
            17 * n + 5 * k, 20 + k, "PNG" if ".png" in file else "JPEG"
        )
        for split, classes in (("train", ("Zebra", "apple", "bee hive", "10")), ("test", ("apple", "owl")))
        for n, name in enumerate(classes)
        for k, file in enumerate(("2.jpg", "10.PNG", "1.jpeg"))
    }
    hub_server.add("somebody/pictures", {**files, ".gitattributes": b"x"}, kind="dataset")
    names = ("10", "Zebra", "apple", "bee hive", "owl")
    task = Task(
        "pictures", "image", names, ("image",), eval_splits={"test": "test"},
        hub_id="somebody/pictures", config="default", revision=HEAD, store_side=16,
    )  # fmt: skip
    hub = tmp_path / "hub"
    monkeypatch.setattr(fetch_tables, "ROWS", 5)
    assert bring(hub, [Piece("dataset", task.hub_id, HEAD, task)]) == []
    for split in ("train", "test"):
        made = datasets.Dataset.from_parquet(str(hub / f"datasets/somebody/pictures/default/{split}.parquet"))
        theirs = datasets.load_dataset("somebody/pictures", split=split, revision=HEAD)
        assert made.features == theirs.features
        assert made["label"] == theirs["label"]
        raw = [table.cast_column("image", datasets.Image(decode=False))["image"] for table in (made, theirs)]
        for one, other in zip(*raw, strict=True):
            assert one["bytes"] == Path(other["path"]).read_bytes()
    online = load_task(task)
    monkeypatch.setenv("FEDLORA_HUB", str(hub))
    mirrored = load_task(task)
    assert (online.train.columns[0] == mirrored.train.columns[0]).all()
    assert online.train.labels.tolist() == [n // 3 for n in range(12)]
    assert mirrored.train.labels.tolist() == [n // 3 for n in range(12)]


def bring(hub, pieces):
    """Fetch pieces; what was missed."""
    survey = look(pieces, HubSource(), hub)
    return fetch(survey.jobs, hub, HubSource(), lambda _: None, survey.missed)[1]


# --- put there by hand


def test_pieces_put_there_by_hand_are_accepted_where_the_hub_gives_none(
    hub_server, tmp_path, want, monkeypatch
):
    want("dolly", GATED)
    add(hub_server, GATED)
    hub_server.repositories["models", GATED].gated = True
    hub = tmp_path / "hub"
    assert run(hub).exit_code == 1
    table, model = hub / f"datasets/{DOLLY}/train.parquet", hub / f"models/{GATED}"
    table.parent.mkdir(parents=True)
    model.mkdir(parents=True)
    rows = [json.loads(line) for line in hub_contents.dolly()["databricks-dolly-15k.jsonl"].splitlines()]
    pd.DataFrame(rows).drop(columns="response").to_parquet(table)
    for name, data in hub_profiles.models()[GATED].items():
        (model / name).write_bytes(data)
    lost = run(hub)
    assert lost.exit_code == 1
    told = r"train\.parquet has no column response .*; it has instruction, context, category"
    assert re.search(told, lost.output)
    pd.DataFrame(rows).to_parquet(table)
    (model / "model-00002-of-00002.safetensors").unlink()
    assert re.search(f"1 of 2 pieces .*\n.*{GATED}.* asks for an agreement", run(hub).output)
    (model / "model-00002-of-00002.safetensors").write_bytes(
        hub_profiles.models()[GATED]["model-00002-of-00002.safetensors"]
    )
    before = files_below(hub)
    done = run(hub)
    assert done.exit_code == 0, done.output
    assert "in the mirror" in done.output
    assert files_below(hub) - before <= {mirror.LIST}
    monkeypatch.setenv("FEDLORA_HUB", str(hub))
    assert len(load_task(get_task("dolly")).train) > 0
    load_backbone(GATED, 2, 0)


def test_files_put_there_by_hand_are_kept_and_listed_only_if_they_are_the_hubs(hub_server, tmp_path, want):
    want("sst2", ROBERTA)
    add(hub_server, "sst2", ROBERTA)
    hub = tmp_path / "hub"
    files = hub_profiles.models()[ROBERTA]
    own = {
        f"models/{ROBERTA}/model.safetensors": files["model.safetensors"],
        f"models/{ROBERTA}/config.json": files["config.json"] + b" ",
        f"datasets/{GLUE}/sst2/train.parquet": hub_contents.parquet(
            {"sentence": ["x", "y"], "label": [0, 1]}
        ),
    }
    for place, data in own.items():
        (hub / place).parent.mkdir(parents=True, exist_ok=True)
        (hub / place).write_bytes(data)
    done = run(hub)
    assert done.exit_code == 0, done.output
    kept = {place for place in own if f"kept: {place} was put there by hand" in done.output}
    assert kept == set(own) - {f"models/{ROBERTA}/model.safetensors"}
    assert all((hub / place).read_bytes() == data for place, data in own.items())
    assert files_below(hub) - {mirror.LIST} - set(mirror.listed(hub)) == kept
    assert not any(path.endswith("/model.safetensors") for _, path in hub_server.requests)
    (hub / f"models/{ROBERTA}/config.json").unlink()
    assert "1 files fetched" in run(hub).output
    assert (hub / f"models/{ROBERTA}/config.json").read_bytes() == files["config.json"]


def test_what_was_put_there_by_hand_is_not_asked_for_by_a_sentence(tmp_path):
    chore = Chore("put a and b there", ("tasks/a.json", "tasks/b.json"))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/a.json").touch()
    assert not chore.done(tmp_path)
    (tmp_path / "tasks/b.json").touch()
    assert chore.done(tmp_path)


# --- faults


@pytest.fixture
def naps(hub_server, monkeypatch):
    """Seconds that were waited, without waiting."""
    taken = []
    monkeypatch.setattr(time, "sleep", lambda seconds: taken.extend([seconds] * (seconds > 0)))
    return taken


@pytest.mark.parametrize(
    ("fault", "kind", "problem", "remedy"),
    [
        ({"status": 403}, FedloraError, "does not let you have it", "hf auth login"),
        (
            {"status": 404, "headers": {"X-Error-Code": "RevisionNotFound"}},
            FedloraError,
            "no such revision",
            "revision",
        ),
        (
            {"status": 404, "headers": {"X-Error-Code": "RepoNotFound"}},
            FedloraError,
            "is not on the Hub",
            "name",
        ),
        ({"status": 429}, Unreachable, "too many requests", "wait five minutes"),
        ({"status": 408}, Unreachable, "status 408", "later"),
        ({"status": 503}, Unreachable, "status 503", "later"),
        ({"drop": True}, Unreachable, "cannot be reached", "network"),
    ],
)
@pytest.mark.parametrize("where", ["/api/", "/resolve/"])
def test_each_fault_is_told_as_what_it_is(hub_server, naps, tmp_path, fault, kind, problem, remedy, where):
    add(hub_server, ROBERTA)
    hub_server.fault(where, **fault)
    (lost,) = bring(tmp_path / "hub", [piece(ROBERTA)])
    assert type(lost.error) is kind
    assert problem in lost.error.problem
    assert ROBERTA in lost.error.problem
    assert remedy in lost.error.remedy
    assert sum(naps) < 60
    hub_server.faults.clear()
    assert bring(tmp_path / "hub", [piece(ROBERTA)]) == []


def test_a_token_that_the_hub_does_not_accept_is_told(hub_server, tmp_path, monkeypatch):
    add(hub_server, ROBERTA)
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    (lost,) = bring(tmp_path / "hub", [piece(ROBERTA)])
    assert "does not accept your token" in lost.error.problem
    assert "hf auth login" in lost.error.remedy
    assert "unset HF_TOKEN" in lost.error.remedy


@pytest.mark.parametrize("where", ["/api/", "/resolve/.*safetensors"])
@pytest.mark.parametrize(
    ("headers", "pause"),
    [({"Retry-After": "7"}, 7), ({"RateLimit": '"api";r=0;t=55'}, 55), ({}, 1)],
)
def test_too_many_requests_are_waited_for_as_long_as_the_hub_says(
    hub_server, naps, tmp_path, where, headers, pause
):
    add(hub_server, ROBERTA)
    times = 1 if where == "/api/" else 2  # the library itself asks once more at once
    hub_server.fault(where, status=429, headers=headers, times=times)
    assert bring(tmp_path / "hub", [piece(ROBERTA)]) == []
    assert len(naps) == 1
    assert pause <= naps[0] <= pause + 1


def test_waiting_has_an_end(hub_server, naps):
    add(hub_server, ROBERTA)
    hub_server.fault("/api/", status=429, headers={"Retry-After": "100"})
    with pytest.raises(Unreachable):
        HubSource().look(piece(ROBERTA))
    assert naps == [100] * (hub_source.TRIES - 1)
    hub_server.faults[0].headers = {"Retry-After": "3600"}
    with pytest.raises(Unreachable):
        HubSource().look(piece(ROBERTA))
    assert len(naps) == hub_source.TRIES - 1  # an hour is not waited for


def test_a_hub_that_never_answers_is_left(hub_server, monkeypatch):
    monkeypatch.setattr(hub_source, "TIMEOUT", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        pytest.raises(Unreachable, match="no answer in time"),
    ):
        HubSource(f"http://127.0.0.1:{mute.getsockname()[1]}").look(piece(ROBERTA))


def test_a_hub_without_an_answer_is_not_asked_for_every_piece(hub_server, naps, tmp_path, want):
    names = (ROBERTA, "sst2", "dolly", "gsm8k", "cifar100")
    want(*names)
    add(hub_server, *names)
    done = bring(tmp_path / "hub", [piece(ROBERTA)])
    assert done == []
    hub_server.fault("/api/", status=503)
    asked = len(hub_server.requests)
    lost = run(tmp_path / "hub")
    assert lost.exit_code == 1
    assert len(hub_server.requests) - asked == PATIENCE * hub_source.TRIES
    assert "4 of 5 pieces cannot be had" in lost.output  # the first is in the mirror
    assert lost.output.count("was not asked for") == 3
    hub_server.close()
    nothing = run(tmp_path / "other")
    assert nothing.exit_code == 1
    assert "cannot be reached" in nothing.output
    assert not (tmp_path / "other").exists()


def test_one_piece_without_an_answer_does_not_stop_the_others(hub_server, naps, tmp_path):
    add(hub_server, ROBERTA, "sst2", "dolly")
    hub_server.fault("/datasets/nyu-mll/glue/resolve/", status=503)
    lost = bring(tmp_path / "hub", [piece(name) for name in ("sst2", ROBERTA, "dolly")])
    assert [each.piece.repo for each in lost] == [GLUE]
    assert {record["from"]["repo"] for record in mirror.listed(tmp_path / "hub").values()} == {ROBERTA, DOLLY}
    hub_server.faults.clear()
    assert bring(tmp_path / "hub", [piece("sst2")]) == []


def test_a_line_that_breaks_is_taken_up_where_it_broke(hub_server, tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)  # what is kept of a broken download
    add(hub_server, ROBERTA)
    weights = "/cdn/.*/model.safetensors"
    hub_server.fault(weights, method="GET", cut=5_000, times=1)
    assert bring(tmp_path / "hub", [piece(ROBERTA)]) == []
    pairs = zip(hub_server.requests, hub_server.ranges, strict=True)
    asked = [r for (method, path), r in pairs if method == "GET" and re.search(weights, path)]
    assert len(asked) == 2
    assert int(re.search(r"bytes=(\d+)-", asked[1])[1]) > 0

    hub_server.fault(weights, cut=100)  # for as long as anybody asks
    (lost,) = bring(tmp_path / "other", [piece(ROBERTA)])
    assert isinstance(lost.error, Unreachable)
    assert f"models/{ROBERTA}/model.safetensors" not in mirror.listed(tmp_path / "other")
    hub_server.faults.clear()
    assert bring(tmp_path / "other", [piece(ROBERTA)]) == []
    listed = mirror.listed(tmp_path / "hub")
    assert mirror.listed(tmp_path / "other") == listed


def test_a_full_disk_stops_the_fetch_and_is_told(hub_server, tmp_path, monkeypatch):
    add(hub_server, ROBERTA, "dolly")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    source, pieces = HubSource(), [piece(ROBERTA), piece("dolly")]
    survey = look(pieces, source, tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(FedloraError, match="no space left"):
        fetch(survey.jobs, tmp_path / "hub", source, lambda _: None)
