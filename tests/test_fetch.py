"""Building a mirror from a source in memory, broken off and damaged; over HTTP: test_fetch_hub.py."""

import hashlib
import json
import re
import shutil
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pandas as pd
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from fedlora_kit import mirror
from fedlora_kit.cli import app
from fedlora_kit.data.sources import load_task
from fedlora_kit.data.tasks import GLUE_REVISION, get_task
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.run import run
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.fetching import fetch as fetching
from fedlora_kit.fetching import hub_source
from fedlora_kit.fetching import tables as fetch_tables
from fedlora_kit.fetching.fetch import STAGING, Missed, by_hand, fetch, look, missing
from fedlora_kit.fetching.plan import Listing, Piece, RemoteFile, targets, wanted
from fedlora_kit.hub_errors import Unreachable
from fedlora_kit.models.backbones import load_backbone
from fedlora_kit.models.names import BACKBONES, Backbone
from fedlora_kit.papers.runs_of import planned_runs

KIT = Path(__file__).resolve().parent.parent / "data" / "backbones" / "text-tiny"
COMMIT = GLUE_REVISION
MODEL = Piece("model", "somebody/small", COMMIT)
SST2 = Piece("dataset", "nyu-mll/glue", COMMIT, get_task("sst2"))
SPEC = {
    "model": {"backbone": "somebody/small"},
    "data": {"task": "sst2", "max_length": 16},
    "split": {"clients": 2},
    "method": {"name": "lora"},
    "local": {"lr": 0.1, "steps": 1, "batch_size": 4},
    "rounds": {"rounds": 1},
}


def table(rows, start=0, *more):
    words = ["good", "bad", "a", "film"]
    sentences = [" ".join(words[(start + n) % 4 :]) for n in range(rows)]
    columns = dict.fromkeys(("sentence", *more), sentences)
    out = BytesIO()
    pd.DataFrame({**columns, "label": [n % 2 for n in range(rows)]}).to_parquet(out)
    return out.getvalue()


def contents():
    """Repository -> name -> bytes, as the Hub would hold them."""
    model = {f.name: f.read_bytes() for f in KIT.iterdir()}
    return {
        "somebody/small": {**model, "pytorch_model.bin": b"code", "modeling.py": b"code", "README.md": b"x"},
        "nyu-mll/glue": {
            "sst2/train-00000-of-00002.parquet": table(9),
            "sst2/train-00001-of-00002.parquet": table(7, 9),
            "sst2/validation-00000-of-00001.parquet": table(5),
            "cola/train-00000-of-00001.parquet": b"other",
        },
    }


class Stand:
    """A source in memory; ``stop_at`` breaks the n-th download off in its middle."""

    def __init__(self, stop_at=0):
        self.held, self.asked, self.stop_at = contents(), [], stop_at

    def look(self, piece):
        files = self.held[piece.repo]
        told = [RemoteFile(n, len(d), hashlib.sha256(d).hexdigest()) for n, d in files.items()]
        return Listing(COMMIT, tuple(told))

    def download(self, piece, revision, file, folder):
        self.asked.append(file.name)
        data, to = self.held[piece.repo][file.name], folder / file.name
        to.parent.mkdir(parents=True, exist_ok=True)
        if len(self.asked) == self.stop_at:
            to.write_bytes(data[: len(data) // 2])
            raise Unreachable("the line is dead", "wait")
        to.write_bytes(data)
        return to


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setitem(BACKBONES, "somebody/small", Backbone("somebody/small", COMMIT))
    return tmp_path / "hub"


def jobs_of(hub, source, pieces=(MODEL, SST2)):
    survey = look(pieces, source, hub)
    assert not survey.missed
    return survey.jobs


def bring(hub, source, pieces=(MODEL, SST2)):
    done, missed = fetch(jobs_of(hub, source, pieces), hub, source, lambda _: None)
    for each in missed:
        raise each.error
    return done


def test_a_mirror_has_the_layout_that_loading_reads(hub, monkeypatch):
    done = bring(hub, Stand())
    names = {p.relative_to(hub).as_posix() for p in hub.rglob("*") if p.is_file()} - {mirror.LIST}
    assert names == {target.place for target in done} == set(mirror.listed(hub))
    assert {"models/somebody/small/model.safetensors", "datasets/nyu-mll/glue/sst2/train.parquet"} <= names
    assert not any(name.endswith((".bin", ".py", ".md")) for name in names)
    assert not (hub / STAGING).exists()
    record = mirror.listed(hub)["datasets/nyu-mll/glue/sst2/train.parquet"]
    assert record["from"]["revision"] == COMMIT
    assert len(record["from"]["files"]) == 2
    monkeypatch.setenv("FEDLORA_HUB", str(hub))
    data = load_task(get_task("sst2"))
    assert (len(data.train), len(data.evals["validation"])) == (16, 5)
    load_backbone("somebody/small", 2, 0)


def test_everything_works_from_the_mirror_alone(hub, monkeypatch):
    bring(hub, Stand())
    monkeypatch.setenv("FEDLORA_HUB", str(hub))
    entry = run(RunSpec.parse(SPEC), device="cpu")
    assert entry.provenance["data"].startswith("mirror:")
    assert sum(entry.results["client_sizes"]) == 16


def test_what_is_there_is_not_fetched_again(hub):
    bring(hub, Stand())
    again = Stand()
    assert missing(jobs_of(hub, again), hub) == []
    assert bring(hub, again) == []
    assert again.asked == []


@pytest.mark.parametrize("stop_at", range(1, 8))
def test_a_broken_fetch_goes_on_and_never_takes_half_a_file(hub, stop_at):
    source = Stand(stop_at)
    total = sum(len(t.sources) for job in jobs_of(hub, source) for t in job.targets)
    assert total == 7
    with pytest.raises(Unreachable):
        bring(hub, source)
    for name, record in mirror.listed(hub).items():  # what is listed is whole
        assert mirror.file_sha256(hub / name) == record["sha256"]
    in_place = {p.relative_to(hub).as_posix() for p in hub.glob("[md]*/**/*") if p.is_file()}
    assert in_place == set(mirror.listed(hub))
    done = bring(hub, source)
    assert {t.place for t in done}.isdisjoint(in_place)
    whole = hub.parent / "whole"
    bring(whole, Stand())
    for name, record in mirror.listed(whole).items():
        assert mirror.listed(hub)[name] == record


def test_a_damaged_download_is_thrown_away(hub):
    source = Stand()
    jobs = jobs_of(hub, source, [SST2])
    name = "sst2/validation-00000-of-00001.parquet"
    good = source.held["nyu-mll/glue"][name]
    source.held["nyu-mll/glue"][name] = good[:-1] + bytes([good[-1] ^ 1])
    _, missed = fetch(jobs, hub, source, lambda _: None)
    assert re.search(r"validation.*came damaged", str(missed[0].error))
    assert not (hub / "datasets/nyu-mll/glue/sst2/validation.parquet").exists()
    source.held["nyu-mll/glue"][name] = good
    fetch(jobs, hub, source, lambda _: None)
    assert len(mirror.listed(hub)) == 2


def test_a_file_of_the_mirror_that_was_damaged_later_is_fetched_again(hub):
    bring(hub, Stand())
    file = hub / "models/somebody/small/model.safetensors"
    data = bytearray(file.read_bytes())
    data[1000] ^= 1
    file.write_bytes(bytes(data))
    source = Stand()
    assert [t.place for t in bring(hub, source)] == ["models/somebody/small/model.safetensors"]


def test_another_revision_is_another_file(hub):
    bring(hub, Stand(), [SST2])
    jobs = [replace(job, revision="d" * 40) for job in jobs_of(hub, Stand(), [SST2])]
    assert len(missing(jobs, hub)) == 2


def test_small_files_are_compared_by_gits_id(hub):
    data = b"{}"
    blob = hashlib.sha1(b"blob 2\0" + data).hexdigest()

    class Small(Stand):
        def look(self, piece):
            told = super().look(piece)
            small = [
                replace(f, sha256="", blob=blob, size=2) if f.name == "config.json" else f for f in told.files
            ]
            return replace(told, files=tuple(small))

    source = Small()
    with pytest.raises(FedloraError, match=r"config\.json.*came damaged"):
        bring(hub, source, [MODEL])
    source.held["somebody/small"]["config.json"] = data
    bring(hub, source, [MODEL])


# --- which files


def files(*names):
    return [RemoteFile(name, 1) for name in names]


def places(piece, *names):
    return {t.place: (t.how, [s.name for s in t.sources]) for t in targets(piece, files(*names))}


def test_only_safetensors_and_what_loading_reads_is_taken():
    found = places(
        MODEL,
        "config.json",
        "model.safetensors",
        "pytorch_model.bin",
        "tf_model.h5",
        "tokenizer.json",
        "modeling_x.py",
        "onnx/model.onnx",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
    )
    assert set(found) == {
        f"models/somebody/small/{n}" for n in ("config.json", "model.safetensors", "tokenizer.json")
    }
    parts = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    assert len(places(MODEL, "config.json", "model.safetensors.index.json", *parts)) == 4
    with pytest.raises(FedloraError, match="safetensors"):
        targets(MODEL, files("config.json", "pytorch_model.bin"))


def test_tables_are_found_under_the_names_that_the_hub_uses():
    cifar = Piece("dataset", "uoft-cs/cifar100", "", get_task("cifar100"))
    found = places(
        cifar, "cifar100/train-00000-of-00001.parquet", "cifar100/test-00000-of-00001.parquet", "README.md"
    )
    assert set(found) == {f"datasets/uoft-cs/cifar100/{split}.parquet" for split in ("train", "test")}
    food = Piece("dataset", "ethz/food101", "", get_task("food101"))
    parts = [f"data/train-{n:05d}-of-00008.parquet" for n in range(8)]
    found = places(food, *reversed(parts), "data/validation-00000-of-00001.parquet")
    assert found["datasets/ethz/food101/default/train.parquet"] == ("join", parts)
    with pytest.raises(FedloraError, match="7 of 8 parts"):
        targets(food, files(*parts[:7], "data/validation-00000-of-00001.parquet"))
    gsm = Piece("dataset", "openai/gsm8k", "", get_task("gsm8k"))
    names = [f"{c}/{s}-00000-of-00001.parquet" for c in ("main", "socratic") for s in ("train", "test")]
    assert places(gsm, *names)["datasets/openai/gsm8k/main/test.parquet"][1] == [names[1]]
    dolly = Piece("dataset", "databricks/databricks-dolly-15k", "", get_task("dolly"))
    assert places(dolly, "databricks-dolly-15k.jsonl", "README.md") == {
        "datasets/databricks/databricks-dolly-15k/train.parquet": ("convert", ["databricks-dolly-15k.jsonl"])
    }
    with pytest.raises(FedloraError, match="by hand"):
        targets(gsm, files("main.zip"))


def test_tables_are_found_under_the_names_of_the_hubs_own_conversion():
    proxies = Piece("dataset", "TNILab/cifar100_proxydata", "", get_task("cifar100_proxy"))
    place = "datasets/TNILab/cifar100_proxydata/default/train.parquet"
    one = "default/train/0000.parquet"
    assert places(proxies, one, "default/test/0000.parquet") == {place: ("copy", [one])}
    two = [one, "default/train/0001.parquet"]
    assert places(proxies, *reversed(two)) == {place: ("join", two)}
    with pytest.raises(FedloraError, match="1 of 2 parts"):
        targets(proxies, files(two[1]))


@pytest.mark.parametrize(
    "names",
    [
        ("train/a/1.jpg", "train/a/2.jpg"),  # one class: no label
        ("train/a/1.jpg", "train/b/2.jpg", "train/metadata.jsonl"),  # the table's columns are there
        ("train/a/1.jpg", "train/b/c/2.jpg"),  # which of the folders is the class?
        ("train/a/1.jpg", "train/b/2.wav"),
        ("test/a/1.jpg", "test/b/2.jpg"),
    ],
)
def test_a_folder_that_is_no_plain_image_folder_is_refused(names):
    proxies = Piece("dataset", "TNILab/cifar100_proxydata", "", get_task("cifar100_proxy"))
    with pytest.raises(FedloraError, match="no split train") as refused:
        targets(proxies, files(*names))
    assert "by hand, as datasets/TNILab/cifar100_proxydata/default/train.parquet" in refused.value.remedy


def test_parts_are_joined_some_rows_at_a_time(tmp_path):
    whole = pd.DataFrame({"sentence": [f"text {n}" for n in range(5_000)], "label": range(5_000)})
    parts = [tmp_path / "0", tmp_path / "1"]
    whole[:4_200].to_parquet(parts[0], row_group_size=5_000, index=False)
    whole[4_200:].to_parquet(parts[1], row_group_size=7, index=False)
    fetch_tables.join(parts, tmp_path / "joined")
    assert pd.read_parquet(tmp_path / "joined").equals(whole)
    about = pyarrow.parquet.ParquetFile(tmp_path / "joined").metadata
    assert max(about.row_group(n).num_rows for n in range(about.num_row_groups)) <= 1_000


def test_lines_become_a_table(hub, monkeypatch):
    rows = [
        {"instruction": f"say {n}", "context": "", "response": f"{n}", "category": "open_qa"}
        for n in range(80)
    ]
    source, name = Stand(), "databricks-dolly-15k.jsonl"
    source.held["databricks/databricks-dolly-15k"] = {name: "\n".join(map(json.dumps, rows)).encode()}
    dolly = Piece("dataset", "databricks/databricks-dolly-15k", "", get_task("dolly"))
    bring(hub, source, [dolly])
    made = pd.read_parquet(hub / "datasets/databricks/databricks-dolly-15k/train.parquet")
    assert made.to_dict("records") == rows


def test_a_fetch_killed_before_a_file_is_in_place_goes_on(hub, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    source = Stand()
    with monkeypatch.context() as here:
        here.setattr(fetching.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            bring(hub, source, [SST2])
    assert len(bring(hub, source, [SST2])) == 2
    assert by_hand(jobs_of(hub, source, [SST2]), hub) == []


def test_what_an_earlier_call_began_is_kept_while_its_piece_gives_no_answer(hub):
    source = Stand(stop_at=2)  # the second part of a table
    with pytest.raises(Unreachable):
        bring(hub, source, [SST2])
    begun = set((hub / STAGING).rglob("*.parquet"))
    assert begun
    for kept, error in ((True, Unreachable("later", "wait")), (False, None)):
        missed = [Missed(SST2, error)] if error else []
        fetch(jobs_of(hub, source, [MODEL]), hub, source, lambda _: None, missed)
        assert set((hub / STAGING).rglob("*.parquet")) == (begun if kept else set())


def test_a_name_that_leads_out_is_refused(hub):
    source = Stand()
    jobs = jobs_of(hub, source, [SST2])
    target = jobs[0].targets[0]
    with pytest.raises(FedloraError, match=r"'\.\.'"):
        fetch([replace(jobs[0], targets=(replace(target, place="../../x"),))], hub, source, print)
    bad = replace(target, sources=(RemoteFile("../x", 1),))
    _, missed = fetch([replace(jobs[0], targets=(bad,))], hub, source, lambda _: None)
    assert "'..'" in str(missed[0].error)
    assert source.asked == []


def test_what_items_need():
    specs = planned_runs("fedlora-optimizer/ablation", "small", seeds=1).specs()
    needed = wanted(specs)
    pieces = [piece.repo for piece in needed.pieces]
    assert pieces == ["TinyLlama/TinyLlama-1.1B-Chat-v1.0", "databricks/databricks-dolly-15k"]
    assert needed.by_hand == ()
    by_hand = wanted(planned_runs("fed-hello/natural_instructions", "small", seeds=1).specs()).by_hand
    assert ["natural-instructions" in chore.text for chore in by_hand] == [True]
    paper = wanted(planned_runs("ffa-lora/table1", "paper", seeds=1).specs())
    assert {p.repo for p in paper.pieces} == {"FacebookAI/roberta-large", "nyu-mll/glue"}
    assert len(paper.pieces) == 5
    assert wanted(planned_runs("ffa-lora/table1", "smoke", seeds=1).specs()).pieces == ()


# --- the command


def test_the_command_lists_and_fetches(tmp_path, monkeypatch):
    source = Stand()
    source.held["FacebookAI/roberta-large"] = source.held["somebody/small"]
    tables = {f"qnli/{s}-00000-of-00001.parquet": table(3, 0, "question") for s in ("train", "validation")}
    source.held["nyu-mll/glue"].update(tables)
    monkeypatch.setattr(hub_source, "HubSource", lambda say: source)
    words = ["fetch", "ffa-lora/init_of_a", "-p", "paper", "--to", str(tmp_path / "hub")]
    listed = CliRunner().invoke(app, [*words, "--dry-run"])
    assert listed.exit_code == 0, listed.output
    assert not (tmp_path / "hub").exists()
    assert source.asked == []
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert len(mirror.listed(tmp_path / "hub")) == len(source.asked) > 2
    again = CliRunner().invoke(app, words)
    assert "0 files fetched" in again.output
    nothing = CliRunner().invoke(app, ["fetch", "start_here", "-p", "smoke", "--to", str(tmp_path / "x")])
    assert "nothing is needed" in nothing.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("start_here", "-p", "huge", "--to", "x"), "huge"),
        (("nothing/there", "-p", "smoke", "--to", "x"), "nothing/there"),
        (("start_here", "-p", "smoke", "--to", "x", "--set", "colour=red"), "colour"),
        (("start_here", "-p", "smoke", "--to", __file__), "no folder"),
        (("start_here", "-p", "smoke", "--to", f"{__file__}/below/it"), "no folder"),
    ],
)
def test_bad_input_is_told(words, said):
    result = CliRunner().invoke(app, ["fetch", *words])
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_model_is_fetched_at_the_revision_in_its_name_and_a_folder_is_not(tmp_path):
    made = RunSpec.parse({**SPEC, "model": {"backbone": "somebody/else@r7"}})
    piece = wanted([made]).pieces[0]
    assert (piece.repo, piece.revision) == ("somebody/else", "r7")
    own = RunSpec.parse({**SPEC, "model": {"backbone": str(tmp_path)}})
    assert {p.kind for p in wanted([own]).pieces} == {"dataset"}


def test_staging_left_by_somebody_else_does_no_harm(hub):
    (hub / STAGING / "model").mkdir(parents=True)
    (hub / STAGING / "model" / "old").write_text("x")
    bring(hub, Stand())
    assert not (hub / STAGING).exists()
    shutil.rmtree(hub)
