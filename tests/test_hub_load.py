"""What is loaded is what is named: pinned commits, online, offline, from a cache and a mirror; where that
cannot be, one error with the cause."""

import json
import re
import shutil
from dataclasses import replace

import datasets
import huggingface_hub
import numpy as np
import pytest
import torch
from hub_contents import KIT, dolly, glue, image_folder, llama, only_bin, roberta
from huggingface_hub import file_download

from fedlora_kit import hub, mirror
from fedlora_kit.cli import doctor
from fedlora_kit.data.encoded import encode_text
from fedlora_kit.data.examples import Examples
from fedlora_kit.data.sources import fingerprint, load_split, load_task
from fedlora_kit.data.task import Task
from fedlora_kit.data.tasks import CIFAR100_PROXY_REVISION, DOLLY_REVISION, GLUE_REVISION, TASKS, get_task
from fedlora_kit.errors import FedloraError
from fedlora_kit.hub_errors import Unreachable
from fedlora_kit.models.backbones import backbone_fingerprint, load_backbone
from fedlora_kit.models.names import BACKBONES
from fedlora_kit.models.tokenizer import load_tokenizer
from fedlora_kit.papers.runs_of import planned_runs

MOVED = "f" * 40
ROBERTA = "FacebookAI/roberta-base"
DEEPSEEK = "deepseek-ai/deepseek-llm-7b-base"
LLAMA = "meta-llama/Llama-2-7b-hf"


@pytest.fixture
def server(hub_server):
    """GLUE and RoBERTa at the pinned commits, and newer ones with other labels and weights."""
    for commit, turned, refs in ((GLUE_REVISION, False, ()), (MOVED, True, ("main",))):
        hub_server.add("nyu-mll/glue", glue(turned), commit=commit, kind="dataset", refs=refs)
    hub_server.add(ROBERTA, roberta(0), commit=BACKBONES[ROBERTA].revision, refs=())
    hub_server.add(ROBERTA, roberta(1), commit=MOVED)
    return hub_server


def labels():
    return load_split(get_task("sst2"), "train").labels.tolist()


def same_weights(model, seed):
    from safetensors.torch import load

    own, wanted = model.state_dict(), load(roberta(seed)["model.safetensors"])
    return all(torch.equal(own[f"roberta.{name}"], value) for name, value in wanted.items())


def test_the_pinned_commit_is_read_though_the_repository_has_moved_on(server):
    assert labels() == [0, 1] * 6
    assert same_weights(load_backbone(ROBERTA, 2, 0), 0)
    assert not any(MOVED in path or "main" in path for _, path in server.requests)
    assert fingerprint(get_task("sst2")).startswith(f"hub:nyu-mll/glue@{GLUE_REVISION}|")
    assert backbone_fingerprint(ROBERTA) == f"hub:{ROBERTA}@{BACKBONES[ROBERTA].revision}"
    server.close()  # and out of the caches, without a network
    assert labels() == [0, 1] * 6
    assert same_weights(load_backbone(ROBERTA, 2, 0), 0)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"status": 401}, "asks for a token"),
        ({"status": 429}, "too many requests"),
        ({"status": 503}, "out of order"),
        ({"drop": True}, "cannot be reached"),
        (None, "HF_HUB_OFFLINE"),
    ],
)
def test_another_revision_in_a_cache_never_stands_in(server, monkeypatch, fault, said):
    datasets.load_dataset("nyu-mll/glue", "sst2", split="train")  # what somebody else did on this machine
    huggingface_hub.snapshot_download(ROBERTA)
    if fault is None:
        for module in (huggingface_hub.constants, datasets.config):
            monkeypatch.setattr(module, "HF_HUB_OFFLINE", True)
    else:
        server.fault(".", **fault)
    with pytest.raises(FedloraError, match=f"(?s){said}.*revision in the cache is another") as caught:
        labels()
    assert "FEDLORA_HUB" in caught.value.remedy or "log in" in caught.value.remedy
    with pytest.raises(FedloraError, match=said):
        load_backbone(ROBERTA, 2, 0)


def test_a_folder_of_the_same_name_never_stands_in(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, files in (("nyu-mll/glue", glue(True)), (ROBERTA, roberta(1))):
        for file, data in files.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_bytes(data)
    assert labels() == [0, 1] * 6
    assert same_weights(load_backbone(ROBERTA, 2, 0), 0)


def test_a_mirror_of_another_commit_is_refused(server, tmp_path, monkeypatch):
    mirrored = tmp_path / "mirror"
    file = mirrored / "datasets/nyu-mll/glue/sst2/train.parquet"
    file.parent.mkdir(parents=True)
    file.write_bytes(glue()["sst2/train-00000-of-00001.parquet"])
    shutil.copytree(KIT / "text-tiny", mirrored / "models" / ROBERTA)
    monkeypatch.setenv("FEDLORA_HUB", str(mirrored))

    def record(commit):
        known = {}
        for path in [file, *(mirrored / "models" / ROBERTA).iterdir()]:
            about = {"sha256": mirror.file_sha256(path), "bytes": path.stat().st_size}
            known[path.relative_to(mirrored).as_posix()] = {**about, "from": {"revision": commit}}
        (mirrored / mirror.LIST).write_text(json.dumps({"files": known}))

    for load, pinned in (
        (lambda: load_split(get_task("sst2"), "train"), GLUE_REVISION),
        (lambda: load_backbone(ROBERTA, 2, 0), BACKBONES[ROBERTA].revision),
        (lambda: load_tokenizer(ROBERTA), BACKBONES[ROBERTA].revision),
    ):
        record(pinned)
        load()
        record(MOVED)
        with pytest.raises(FedloraError, match=f"of commit {MOVED[:12]}, and {pinned[:12]} is pinned"):
            load()
    assert server.requests == []


def test_the_built_in_sets_of_the_hub_are_pinned_but_for_those_whose_commit_is_not_known():
    remote = [task for task in TASKS.values() if task.hub_id and task.layout == "table"]
    unknown = {task.hub_id for task in remote if not mirror.is_commit(task.revision)}
    assert unknown == {"TNILab/DomainNet_FL", "flwrlabs/pacs"}
    assert all(mirror.is_commit(b.revision) for b in BACKBONES.values() if not b.name.startswith("kit/"))


# --- without a pin


OWN = Task("own", "text", ("negative", "positive"), ("sentence",), hub_id="somebody/own", config="sst2")


def test_without_a_pin_the_commit_that_was_read_is_in_the_key(hub_server):
    hub_server.add("somebody/own", glue(), commit="1" * 40, kind="dataset")
    first = fingerprint(OWN)
    assert first.startswith(f"hub:somebody/own@{'1' * 40}|")
    hub_server.add("somebody/own", glue(True), commit="2" * 40, kind="dataset")
    assert fingerprint(OWN) == first  # this process stays with it
    assert load_split(OWN, "train").labels.tolist() == [0, 1] * 6
    asked = len(hub_server.requests)
    fingerprint(OWN)
    assert len(hub_server.requests) == asked
    hub._resolved.clear()  # as another process
    assert fingerprint(OWN).startswith(f"hub:somebody/own@{'2' * 40}|")
    assert load_split(OWN, "train").labels.tolist() == [1, 0] * 6
    tagged = replace(OWN, revision="v1")
    hub_server.add("somebody/own", glue(), commit="1" * 40, kind="dataset", refs=("v1",))
    assert fingerprint(tagged).startswith(f"hub:somebody/own@{'1' * 40}|")


def test_without_a_pin_and_without_the_hub_there_is_no_key_and_no_second_wait(hub_server):
    hub_server.fault(".", status=503)
    for _ in range(3):
        with pytest.raises(Unreachable, match=r"somebody/own: the Hub is out of order \(status 503\)"):
            fingerprint(OWN)
    assert len(hub_server.requests) <= 6  # the retries of one call
    with pytest.raises(Unreachable, match="out of order"):
        load_task(OWN)


def test_any_model_has_its_commit_in_the_key(hub_server):
    hub_server.add("somebody/small", roberta(2), commit="2" * 40, refs=("old",))
    hub_server.add("somebody/small", roberta(1), commit="3" * 40)
    assert backbone_fingerprint("somebody/small") == f"hub:somebody/small@{'3' * 40}"
    assert same_weights(load_backbone("somebody/small", 2, 0), 1)
    for revision in ("old", "2" * 40):
        assert backbone_fingerprint(f"somebody/small@{revision}") == f"hub:somebody/small@{'2' * 40}"
        assert same_weights(load_backbone(f"somebody/small@{revision}", 2, 0), 2)
    with pytest.raises(FedloraError, match="somebody/none"):
        backbone_fingerprint("somebody/none")


def test_a_key_asks_for_a_commit_and_downloads_nothing(hub_server):
    hub_server.add("TNILab/DomainNet_FL", {"README.md": b""}, commit="4" * 40, kind="dataset")
    spec = planned_runs("fed-hello/domainnet", "paper", seeds=1).specs()[0]
    key = spec.key()
    assert not any("/resolve/" in path or "/tree/" in path for _, path in hub_server.requests)
    hub._resolved.clear()
    hub_server.close()
    assert spec.key() == key  # what this machine saw last
    hub._resolved.clear()
    shutil.rmtree(huggingface_hub.constants.HF_HUB_CACHE)
    with pytest.raises(Unreachable, match="DomainNet_FL: the Hub cannot be reached"):
        spec.key()


def test_without_a_network_nobody_waits_for_the_hub(hub_server, monkeypatch):
    import huggingface_hub.utils._http as http

    hub_server.close()
    monkeypatch.setattr(http.time, "sleep", lambda _: pytest.fail("waits and tries again"))
    with pytest.raises(Unreachable, match="nyu-mll/glue .*the Hub cannot be reached"):
        load_split(get_task("sst2"), "train")
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


# --- one clear error


BAD_TOKEN = {"X-Error-Message": "Invalid credentials in Authorization header"}


@pytest.mark.parametrize(
    ("fault", "said", "remedy"),
    [
        (
            {"status": 401, "headers": BAD_TOKEN},
            "does not accept your token",
            "hf auth login.*unset HF_TOKEN",
        ),
        ({"status": 403}, "does not let you have it", "token that may read it"),
        ({"status": 404}, "has no such page", "look at the name"),
        ({"status": 404, "headers": {"X-Error-Code": "RepoNotFound"}}, "not on the Hub", "look at its name"),
        (
            {"status": 404, "headers": {"X-Error-Code": "RevisionNotFound"}},
            "no such revision",
            "revision's name",
        ),
        ({"status": 408}, "no answer in time", "try again later"),
        ({"status": 429}, "too many requests", "wait five minutes"),
        ({"status": 500}, "out of order", "try again later, or set FEDLORA_HUB"),
        ({"status": 504}, "no answer in time", "try again later"),
        ({"drop": True}, "cannot be reached", "connect this machine"),
    ],
)
def test_what_the_hub_answers_is_told_with_its_remedy(hub_server, monkeypatch, fault, said, remedy):
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    hub_server.fault(".", **fault)
    status = f"status {fault['status']}" if "status" in fault else ""
    for load in (lambda: load_backbone(ROBERTA, 2, 0), lambda: load_split(get_task("sst2"), "train")):
        with pytest.raises(FedloraError, match=said) as caught:
            load()
        assert status in caught.value.problem
        assert len(caught.value.problem.splitlines()) == 1
        assert re.search(remedy, caught.value.remedy), caught.value.remedy


def test_a_hub_that_hangs_is_a_time_out(hub_server, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_ETAG_TIMEOUT", 0.02)
    monkeypatch.setattr(file_download, "_ETAG_RETRY_TIMEOUT", 0.02)
    monkeypatch.setattr(hub, "TIMEOUT", 0.02)
    hub_server.fault(".", delay=0.2)
    pinned = (lambda: load_backbone(ROBERTA, 2, 0), lambda: load_split(get_task("sst2"), "train"))
    for load in (*pinned, lambda: fingerprint(OWN)):
        with pytest.raises(Unreachable, match="no answer in time"):
            load()


def test_names_that_the_hub_does_not_have(hub_server):
    hub_server.add("nyu-mll/glue", glue(), commit=MOVED, kind="dataset")
    with pytest.raises(FedloraError, match="nyu-mll/glue at bcdcba79d07b: the Hub has no such revision"):
        labels()
    with pytest.raises(FedloraError, match="gsm8k at e53f048856ff is not on the Hub, or not for everybody"):
        load_split(get_task("gsm8k"), "train")
    with pytest.raises(FedloraError, match="not on the Hub"):
        load_tokenizer(ROBERTA)
    hub_server.add("somebody/own", {"notes.txt": b"x"}, kind="dataset")
    with pytest.raises(
        FedloraError, match=r"somebody/own at e{12}.*config 'sst2'|BuilderConfig 'sst2'"
    ) as caught:
        load_split(OWN, "train")
    assert "configuration" in caught.value.remedy


@pytest.mark.parametrize("token", [None, "hf_valid"])
def test_a_model_that_asks_for_an_agreement(hub_server, monkeypatch, token):
    hub_server.add(LLAMA, llama(), commit=BACKBONES[LLAMA].revision, gated=True)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
        load_backbone(LLAMA, 1, 0)
        hub_server.fault("/resolve/", status=403, headers={"X-Error-Code": "GatedRepo"})
        shutil.rmtree(huggingface_hub.constants.HF_HUB_CACHE)
    with pytest.raises(FedloraError, match="asks for an agreement first") as caught:
        load_backbone(LLAMA, 1, 0)
    assert f"/{LLAMA}" in caught.value.remedy
    assert ("hf auth login" in caught.value.remedy) == (token is None)
    with pytest.raises(FedloraError, match="asks for an agreement first"):
        load_tokenizer(LLAMA)


def test_only_safetensors_are_loaded_and_deepseek_is_pinned_where_it_has_them(hub_server):
    hub_server.add(DEEPSEEK, only_bin(llama()), commit="7683fea62db869066ddaff6a41d032262c490d4f")
    hub_server.add(DEEPSEEK, llama(), commit="dbd6f0e98a1f2c9978e2d0c6370cdfc563218527", refs=("refs/pr/3",))
    load_backbone(DEEPSEEK, 1, 0)
    with pytest.raises(FedloraError, match="no safetensors weights at main") as caught:
        load_backbone(f"{DEEPSEEK}@main", 1, 0)
    assert "name a revision that has them" in caught.value.remedy
    assert not any(path.endswith(".bin") for _, path in hub_server.requests)


def test_a_download_that_was_cut_is_told_and_taken_up_again(server, monkeypatch):
    load_tokenizer(ROBERTA)
    rule = server.fault("safetensors", method="GET", cut=1000)
    with pytest.raises(FedloraError, match=f"model {ROBERTA}"):
        load_backbone(ROBERTA, 2, 0)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unreachable, match="not wholly on this machine, and HF_HUB_OFFLINE is set"):
        load_backbone(ROBERTA, 2, 0)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    server.faults.remove(rule)
    assert same_weights(load_backbone(ROBERTA, 2, 0), 0)


def test_the_doctor_asks_the_hub_once(hub_server, monkeypatch, tmp_path):
    hub_server.add(ROBERTA, {}, commit=BACKBONES[ROBERTA].revision)
    found = doctor.hub()
    assert (found.verdict, len(hub_server.requests)) == ("ok", 1)
    assert "answers; no token" in found.found
    monkeypatch.setenv("HF_TOKEN", "hf_valid")
    assert "a token is there" in doctor.hub().found
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    assert doctor.hub().verdict == "warn"
    assert "does not accept your token" in doctor.hub().found
    hub_server.fault(".", status=429)
    assert "too many requests" in doctor.hub().found
    hub_server.close()
    gone = doctor.hub()
    assert "cannot be reached" in gone.found
    assert "FEDLORA_HUB" in gone.remedy
    asked = len(hub_server.requests)
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path))
    assert doctor.hub().found == "not asked, as there is a mirror"
    assert len(hub_server.requests) == asked


# --- tokenizers


def put(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def test_a_tokenizer_without_its_json_asks_for_sentencepiece(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path))
    files = {name: data for name, data in llama().items() if name in ("config.json", "model.safetensors")}
    told = json.dumps({"tokenizer_class": "LlamaTokenizer"}).encode()
    put(tmp_path / "models" / LLAMA, {**files, "tokenizer.model": b"\n\x07", "tokenizer_config.json": told})
    with pytest.raises(FedloraError, match=LLAMA) as caught:
        load_tokenizer(LLAMA)
    assert "pip install sentencepiece" in caught.value.remedy


def test_texts_begin_with_the_first_token_that_the_configuration_asks_for(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path))
    files = llama()
    made, told = json.loads(files["tokenizer.json"]), json.loads(files["tokenizer_config.json"])
    made["post_processor"] = None
    told |= {"tokenizer_class": "LlamaTokenizerFast"}
    plain = json.dumps(made).encode()
    for asks, begins in ((False, False), (True, True)):
        words = json.dumps({**told, "add_bos_token": asks}).encode()
        put(
            tmp_path / "models" / DEEPSEEK, {**files, "tokenizer.json": plain, "tokenizer_config.json": words}
        )
        tokenizer = load_tokenizer(DEEPSEEK)
        assert (tokenizer("12 and 3")["input_ids"][0] == tokenizer.bos_token_id) == begins
        assert tokenizer.decode(tokenizer("12 and 3")["input_ids"], skip_special_tokens=True) == "12 and 3"
    words = json.dumps({**told, "add_bos_token": True, "bos_token": None}).encode()
    put(tmp_path / "models" / DEEPSEEK, {"tokenizer_config.json": words})
    with pytest.raises(FedloraError, match="does not begin texts with"):
        load_tokenizer(DEEPSEEK)


def test_texts_are_cut_to_the_positions_of_the_model(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path))
    told = json.loads(roberta()["tokenizer_config.json"])
    told.pop("model_max_length")
    put(tmp_path / "models" / ROBERTA, {**roberta(), "tokenizer_config.json": json.dumps(told).encode()})
    tokenizer = load_tokenizer(ROBERTA)
    assert tokenizer.model_max_length == 48  # 50 positions, and RoBERTa's begin at 2
    long = Examples((["good film " * 60, "bad"],), np.zeros(2, np.int64))
    data = encode_text(long, tokenizer, 512)
    assert data.lengths.max() == 48
    batch, _ = data.batch(np.arange(2), torch.device("cpu"))
    load_backbone(ROBERTA, 2, 0)(**batch)  # one position more would be out of range


# --- images


def test_images_of_a_folder_repository_are_read_out_of_any_cache(hub_server):
    from fedlora_kit.data.class_names import CIFAR100

    hub_server.add(
        "TNILab/cifar100_proxydata", image_folder(CIFAR100), commit=CIFAR100_PROXY_REVISION, kind="dataset"
    )
    found = load_split(get_task("cifar100_proxy"), "train")
    assert found.labels.tolist() == list(range(100))
    asked = len(hub_server.requests)
    load_split(get_task("cifar100_proxy"), "train")
    assert len(hub_server.requests) == asked  # decoded once, and known by its commit


def test_lines_are_read_at_their_commit(hub_server):
    hub_server.add("databricks/databricks-dolly-15k", dolly(), commit=DOLLY_REVISION, kind="dataset", refs=())
    hub_server.add("databricks/databricks-dolly-15k", dolly(6), commit=MOVED, kind="dataset")
    whole = replace(get_task("dolly"), held_out=0, eval_splits={}, label_names=("open_qa", "closed_qa"))
    assert len(load_split(whole, "train")) == 24
