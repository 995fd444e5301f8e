"""What comes from outside is data: no pickle, no remote code, no name that leads out, no value run."""

import ast
import json
import os
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import papermill.parameterize
import pytest
import toy
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from test_batch import Item, write_notebook

import fedlora_kit
from fedlora_kit import paths
from fedlora_kit.batch.order import Order
from fedlora_kit.batch.parameters import Parameter, coerce, parse_settings
from fedlora_kit.batch.pipeline import reproduce
from fedlora_kit.data import natural_instructions
from fedlora_kit.data.images import decode
from fedlora_kit.data.sources import fingerprint, load_split
from fedlora_kit.data.task import Task
from fedlora_kit.data.tasks import get_task
from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.experiments.atomic import DamageWarning, from_json
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.models.backbones import backbone_fingerprint, load_backbone
from fedlora_kit.models.names import backbone_folder
from fedlora_kit.models.tokenizer import load_tokenizer

ROOT = Path(fedlora_kit.__file__).resolve().parent.parent
SOURCES = sorted(
    p for part in ("fedlora_kit", "tools", "notebooks", "benchmarks") for p in (ROOT / part).rglob("*.py")
)

# --- no pickle, no code from outside --------------------------------------------------------------------

MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "jsonpickle"}
CALLS = {"eval", "exec", "compile", "__import__", "execfile"}
METHODS = {
    "os.system",
    "os.popen",
    "pickle.load",
    "pickle.loads",
    "joblib.load",
    "joblib.dump",
    "pd.read_pickle",
}
METHODS |= {"runpy.run_path", "runpy.run_module", "importlib.import_module"}


def unsafe(text):
    """Lines of a source text that load or run what they should not."""
    found = []
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        found += [f"{node.lineno}: import {n}" for n in names if n.split(".")[0] in MODULES]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        named = {k.arg: k.value for k in node.keywords if k.arg}
        said = {name: ast.unparse(value) for name, value in named.items()}
        bad = called in CALLS or called in METHODS or called.endswith((".read_pickle", ".to_pickle"))
        bad |= called in ("torch.load", "load") and "torch" in called and said.get("weights_only") != "True"
        bad |= called.startswith("yaml.") and called.endswith(".load") and "Safe" not in ast.unparse(node)
        bad |= said.get("trust_remote_code", "False") != "False"
        bad |= said.get("allow_pickle", "False") != "False"
        bad |= said.get("shell", "False") != "False"
        bad |= said.get("use_safetensors", "True") != "True"
        bad |= called == "torch.save"
        if bad:
            found.append(f"{node.lineno}: {ast.unparse(node)[:80]}")
    return found


def test_nothing_unsafe_is_loaded_or_run():
    for path in SOURCES:
        found = unsafe(path.read_text())
        if path.parent == ROOT / "tools":  # documentation imports the kit's own modules by their names
            found = [line for line in found if "importlib.import_module(" not in line]
        if path.name == "own_files.py":  # compares a file with what was imported from it; runs nothing
            found = [line for line in found if "compile(text, " not in line]
        assert not found, path


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from dill import loads",
        "eval(x)",
        "exec('1')",
        "__import__(name)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "torch.save(x, f)",
        "yaml.load(f)",
        "Auto.from_pretrained(n, trust_remote_code=True)",
        "Auto.from_pretrained(n, trust_remote_code=flag)",
        "np.load(f, allow_pickle=True)",
        "os.system(c)",
        "subprocess.run(c, shell=True)",
        "joblib.load(f)",
        "pd.read_pickle(f)",
        "Auto.from_pretrained(n, use_safetensors=False)",
        "importlib.import_module(name)",
    ],
)
def test_the_check_above_sees_each_of_these(line):
    assert unsafe(line)


def test_the_check_above_lets_the_safe_forms_pass():
    safe = (
        "torch.load(f, weights_only=True)\nyaml.safe_load(f)\nnp.load(f, allow_pickle=False)\nmodel.eval()\n"
    )
    assert not unsafe(safe + "load_file(f)\nre.compile(x)\nast.literal_eval(x)")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    place = tmp_path / "hub"
    toy.build_mirror(place)
    monkeypatch.setenv("FEDLORA_HUB", str(place))
    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path / "home"))
    return place


def model_folder(hub):
    return hub / "models" / toy.BACKBONE


CODE = """
open({marker!r}, 'w').write('ran')
from transformers import {what}
class Evil({what}):
    model_type = 'evil'
"""


@pytest.mark.parametrize("what", ["config", "tokenizer"])
def test_code_beside_a_model_is_not_run_and_nobody_is_asked(hub, tmp_path, monkeypatch, what):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    marker = tmp_path / "marker"
    folder = model_folder(hub)
    if what == "config":
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "evil.py").write_text(CODE.format(marker=str(marker), what="PretrainedConfig"))
        with pytest.raises(FedloraError, match=r"roberta-base: transformers does not know its architecture"):
            load_backbone(toy.BACKBONE, 2, 0)
    else:
        (folder / "evil.py").write_text(CODE.format(marker=str(marker), what="PreTrainedTokenizerFast"))
        file = folder / "tokenizer_config.json"
        about = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
        file.write_text(json.dumps({**json.loads(file.read_text()), **about}))
        with suppress(FedloraError):  # or it takes a tokenizer of its own for the files
            load_tokenizer(toy.BACKBONE)
    assert not marker.exists()


class Bomb:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def test_pickled_weights_are_not_loaded(hub, tmp_path):
    import pickle

    (model_folder(hub) / "model.safetensors").unlink()
    (model_folder(hub) / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "marker")))
    with pytest.raises(FedloraError, match="roberta-base"):
        load_backbone(toy.BACKBONE, 2, 0)
    assert not (tmp_path / "marker").exists()


# --- values are data ------------------------------------------------------------------------------------

HOSTILE = [
    "__import__('os').system('touch marker')",
    "'; import os; os.system('touch marker') #",
    '"""; import os; os.system("touch marker"); """',
    "\\'; raise SystemExit #",
    'a\\"; raise SystemExit #',
    "line one\nraise SystemExit\n# %%",
    "{profile} {{x}} %(y)s $HOME `touch marker` $(touch marker)",
    "  spaces stay  \t",
    "a=b=c",
    "\u202eturned \u0000nul \x1b[31mred ⟨σ⟩ \U0001f600",
    "\r\n\u2028\u2029\x85 all kinds of line ends",
    "None",
]


@settings(max_examples=300, deadline=None)
@given(st.text() | st.sampled_from(HOSTILE))
def test_any_text_reaches_the_notebooks_cell_as_a_literal(text):
    assume(not text.startswith(("./", "../")))  # a folder that is there is named whole
    value = coerce("text", text, Parameter("text", "str", "", ""))
    assert value == text
    kernel = {"name": "python3", "language": "python", "display_name": "x"}
    node = nbformat.v4.new_notebook(metadata={"kernelspec": kernel, "papermill": {}})
    node.cells.append(nbformat.v4.new_code_cell("", metadata={"tags": ["parameters"]}))
    node = papermill.parameterize.parameterize_notebook(node, {"text": value, "words": [value]})
    (injected,) = (cell for cell in node.cells if "injected-parameters" in cell.metadata.tags)
    tree = ast.parse(injected.source)
    assert [type(line) for line in tree.body] == [ast.Assign, ast.Assign]
    assert ast.literal_eval(tree.body[0].value) == text
    assert ast.literal_eval(tree.body[1].value) == [text]


@given(st.text(), st.sampled_from(["int", "float", "bool", "list[int]", "list[float]", "int | None"]))
def test_a_text_for_a_number_is_a_number_or_refused(text, kind):
    try:
        value = coerce("x", text, Parameter("x", kind, None, ""))
    except BadValue:
        return
    assert value is None or isinstance(value, int | float | list)


@given(st.text())
def test_set_takes_everything_behind_the_first_sign(text):
    assert parse_settings([f"name={text}"]) == {"name": text}


def test_hostile_values_arrive_in_a_real_notebook(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path))
    names = [f"text_{i}" for i in range(len(HOSTILE))]
    head = 'profile: str = "smoke"  # size\noutput_dir: str = "figures"  # outputs\n'
    cell = f"import json\nopen('seen.json', 'w').write(json.dumps([{', '.join(names)}]))"
    write_notebook(
        tmp_path, "lesson", cell, parameters=head + "".join(f'{n}: str = ""  # text\n' for n in names)
    )
    sets = parse_settings([f"{n}={text}" for n, text in zip(names, HOSTILE, strict=True)])
    (status,) = reproduce(Order([Item("lesson", "lesson")], settings=sets)).statuses
    assert status.status == "ok", status.error
    assert json.loads((tmp_path / "notebooks" / "seen.json").read_text()) == HOSTILE
    assert not list(tmp_path.rglob("marker"))


@pytest.mark.parametrize("name", ["../x", "sst2/../../x", "/etc/passwd", "sst2\n", "__import__('os')"])
def test_names_in_a_run_are_looked_up_and_never_used_as_they_are(name):
    for change in ({"data": {"task": name}}, {"model": {"backbone": name}}, {"method": {"name": name}}):
        with pytest.raises(FedloraError):
            RunSpec.parse(toy.description(**change)).key()


# --- a hostile mirror: names and links that lead out ----------------------------------------------------


@pytest.mark.parametrize("name", ["..", "../x", "a/../../x", "/etc/passwd", "a\\..\\x", "a\0b", ""])
def test_what_is_no_name_below_a_folder(tmp_path, name):
    with pytest.raises(FedloraError, match="no name of a file below"):
        paths.inside(tmp_path, name)


def test_links_may_stay_inside_and_not_lead_out(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir(), outside.mkdir()
    (root / "real").write_text("x")
    (root / "link").symlink_to(root / "real")
    (root / "out").symlink_to(outside)
    assert paths.inside(root, "link").read_text() == "x"
    assert paths.inside(root, "not/yet/there") == root / "not" / "yet" / "there"
    for name in ("out", "out/x"):
        with pytest.raises(FedloraError, match="link that leads out"):
            paths.inside(root, name)
    (tmp_path / "alias").symlink_to(root)  # the mirror itself may be named by a link
    assert paths.inside(tmp_path / "alias", "real").read_text() == "x"


TASK = Task("hostile", "text", ("a", "b"), ("text",), hub_id="somebody/data", eval_splits={})


def table(hub, frame, name="somebody/data/train.parquet"):
    file = hub / "datasets" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(frame).to_parquet(file)
    return file


@pytest.mark.parametrize(
    "change",
    [{"hub_id": "../../x"}, {"hub_id": "a\\..\\x"}, {"config": "../../.."}, {"train_split": "../../x"}],
)
def test_a_task_whose_names_lead_out_reads_nothing(hub, change):
    task = replace(TASK, **change)
    for read in (lambda: load_split(task, task.train_split), lambda: fingerprint(task)):
        with pytest.raises(FedloraError, match="no name of a file below"):
            read()


def test_task_files_whose_names_lead_out(hub):
    task = natural_instructions.chosen_tasks(
        get_task("natural_instructions"), "mine", ["../../../etc/passwd"]
    )
    with pytest.raises(FedloraError, match="no name of a file below"):
        natural_instructions.read(task)


def test_a_table_that_is_a_link_out(hub, tmp_path):
    elsewhere = table(tmp_path / "else", {"text": ["x"], "label": [0]})
    place = hub / "datasets" / "somebody" / "data"
    place.mkdir(parents=True)
    (place / "train.parquet").symlink_to(elsewhere)
    with pytest.raises(FedloraError, match="link that leads out"):
        load_split(TASK, "train")
    (place / "train.parquet").unlink()
    table(hub, {"text": ["x"], "label": [0]})
    assert len(load_split(TASK, "train")) == 1


def test_models_whose_names_or_files_lead_out(hub, tmp_path):
    for name in ("somebody/..", "somebody/../../x", "somebody/x@../../y", "a/b/c", "", "x", "x y/z"):
        with pytest.raises(BadValue, match="no name of a model"):
            backbone_folder(name)
    weights = model_folder(hub) / "model.safetensors"
    weights.rename(tmp_path / "elsewhere.safetensors")
    weights.symlink_to(tmp_path / "elsewhere.safetensors")
    for read in (lambda: load_backbone(toy.BACKBONE, 2, 0), lambda: backbone_fingerprint(toy.BACKBONE)):
        with pytest.raises(FedloraError, match=r"model\.safetensors is a link that leads out"):
            read()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            '{"files": {"models/FacebookAI/roberta-base/../../../x": {"sha256": "0", "bytes": 1}}}',
            "no name of a",
        ),
        (
            '{"files": {"models/FacebookAI/roberta-base/x": {"sha256": "0", "bytes": 1}}}',
            "which DIGESTS.json lists",
        ),
        ('{"files": {"x": 3}}', "cannot be read"),
        ('{"files": ' + "[" * 200_000, "cannot be read"),
        ("[]", "cannot be read"),
    ],
)
def test_a_hostile_list_of_digests(hub, content, said):
    (hub / "DIGESTS.json").write_text(content)
    with pytest.raises(FedloraError, match=said):
        load_backbone(toy.BACKBONE, 2, 0)


def test_an_image_column_cannot_name_files_of_this_machine(tmp_path):
    from PIL import Image

    Image.new("RGB", (4, 4)).save(tmp_path / "private.png")
    with pytest.raises(FedloraError, match=r"row 7 holds the path .*private\.png"):
        decode({"bytes": None, "path": str(tmp_path / "private.png")}, None, "row 7")


# --- a hostile mirror: sizes and contents ---------------------------------------------------------------


@pytest.mark.parametrize(
    "content", ["[" * 100_000, "{", "[]", '{"Definition": 3, "Instances": 4}', '"x"', "\x00"]
)
def test_a_malformed_task_file(hub, content):
    task = natural_instructions.chosen_tasks(get_task("natural_instructions"), "mine", ["bad"])
    file = hub / "datasets" / "allenai" / "natural-instructions" / "tasks" / "bad.json"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    with pytest.raises(FedloraError, match=r"bad\.json is not a task file"):
        natural_instructions.read(task)


def cut(file):
    os.truncate(file, file.stat().st_size // 2)


def flip(file):
    data = bytearray(file.read_bytes())
    data[-6] ^= 255  # in the length of parquet's footer
    file.write_bytes(data)


@pytest.mark.parametrize(
    "damage", [cut, flip, lambda f: f.write_bytes(b"PAR1"), lambda f: f.write_bytes(b"")]
)
def test_a_malformed_table(hub, damage):
    damage(table(hub, {"text": ["x"] * 9, "label": [0] * 9}))
    with pytest.raises(FedloraError, match=r"train\.parquet .* is damaged"):
        load_split(TASK, "train")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0.5, 1.0], r"column label holds '0\.5' in row 0"),
        ([[0], [1]], r"column label holds '\[0\]' in row 0"),
        ([True, False], "column label holds 'True'"),
        (["a", "__import__('os')"], 'unknown value "__import__'),
        ([0, 7], r"labels 0\.\.7"),
        ([-1, 0], r"labels -1\.\.0"),
    ],
)
def test_labels_that_are_none(hub, labels, said):
    table(hub, {"text": ["x", "y"], "label": labels})
    with pytest.raises(FedloraError, match=said):
        load_split(TASK, "train")


def test_a_table_without_its_columns(hub):
    table(hub, {"other": ["x"]})
    with pytest.raises(FedloraError, match="no column text, label"):
        load_split(TASK, "train")


HEADERS = {
    "not json": b"\x04\0\0\0\0\0\0\0{{{{",
    "endless": b"\xff" * 8 + b"{}",
    "beyond the file": (2).to_bytes(8, "little"),
    "nested": (200_000).to_bytes(8, "little") + b"[" * 200_000,
    "offsets": (lambda h: len(h).to_bytes(8, "little") + h)(
        b'{"x":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
    ),
}


@pytest.mark.parametrize("what", HEADERS)
def test_malformed_weights(hub, what):
    (model_folder(hub) / "model.safetensors").write_bytes(HEADERS[what])
    with pytest.raises(FedloraError, match="roberta-base: the folder is damaged"):
        load_backbone(toy.BACKBONE, 2, 0)


def test_nested_json_is_no_json():
    with pytest.raises(ValueError, match="nested too deep"):
        from_json("[" * 200_000)


# --- a hostile store (further cases: tests/test_store_damage.py) ----------------------------------------


@pytest.mark.parametrize(
    "content", [b"[" * 200_000, b"{}", b"[]", b"null", b"\xff", b'{"format": 1, "files": {"../x": {}}}']
)
def test_a_malformed_manifest_is_damage(tmp_path, content):
    store, key = Store(tmp_path / "runs"), "0" * 16
    (store.root / key).mkdir(parents=True)
    (store.root / key / "manifest.json").write_bytes(content)
    with pytest.warns(DamageWarning, match="cannot be read|was changed"):
        assert store.load(key) is None


def test_a_huge_manifest_is_not_read(tmp_path):
    store, key = Store(tmp_path / "runs"), "0" * 16
    (store.root / key).mkdir(parents=True)
    with (store.root / key / "manifest.json").open("wb") as handle:
        handle.truncate(1 << 40)
    with pytest.warns(DamageWarning, match=f"has {1 << 40} bytes"):
        assert store.load(key) is None


def test_the_files_of_the_kit_are_plain(tmp_path):
    """The backbones in the repository hold tensors and nothing else."""
    files = sorted((ROOT / "data" / "backbones").rglob("*"))
    kinds = {f.suffix for f in files if f.is_file()}
    assert not kinds & {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
    for file in files:
        if file.suffix == ".safetensors":
            with safe_open(file, "np") as content:
                assert all(re.fullmatch(r"[\w.]+", name) for name in content.keys())  # noqa: SIM118
                assert all(np.isfinite(content.get_tensor(n)).all() for n in list(content.keys())[:2])
