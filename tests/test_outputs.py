"""An item's outputs: the files, their content, and what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")
from matplotlib import pyplot as plt
from printed_tables import wrong_cells

from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.reporting import style
from fedlora_kit.reporting.comparison import COLUMNS
from fedlora_kit.reporting.outputs import VERDICTS, ItemOutputs, count_claims, item_folder, read_claims
from fedlora_kit.study.claims import Claim, Judged, Verdict
from fedlora_kit.study.look_log import Look


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ItemOutputs:
    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path))
    monkeypatch.delenv("FEDLORA_STAGING", raising=False)
    return ItemOutputs("ffa-lora/table1", "smoke")


def judged(status: str = "reproduced", text: str = "FFA < LoRA & co") -> Judged:
    claim = Claim("c1", text, "Table 1", "SEEN", judge=lambda results: verdict)
    verdict = Verdict(status, "p = 0.01", {"p": 0.01, "ratio": float("inf")})  # type: ignore[arg-type]
    return Judged(claim, verdict, Look(1, []))


def test_the_folder_counts_from_home_unless_absolute(outputs: ItemOutputs, tmp_path: Path) -> None:
    assert outputs.folder == tmp_path / "figures" / "smoke" / "ffa-lora" / "table1"
    assert ItemOutputs("start_here", "paper", "/x").folder == Path("/x/paper/start_here")


def test_while_staged_nothing_reaches_the_real_folder(
    outputs: ItemOutputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDLORA_STAGING", str(tmp_path / "scratch"))
    staged = ItemOutputs("ffa-lora/table1", "smoke")
    staged.table(pd.DataFrame({"a": [1]}))
    assert (tmp_path / "scratch/smoke/ffa-lora/table1/table.csv").is_file()
    assert not outputs.folder.exists()


@pytest.mark.parametrize("item", ["../x", "a/../b", "/a", "", "a//b", "a/", ".x", "a b"])
def test_item_ids_cannot_leave_the_folder(item: str) -> None:
    with pytest.raises(BadValue, match="plain name"):
        item_folder(item, "smoke")
    with pytest.raises(BadValue, match="plain name"):
        item_folder("x", item)


def test_a_copy_in_jupyter_writes_as_the_item_of_its_file_or_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path))

    def opened(name: str, there: bool = True) -> ItemOutputs:
        file = tmp_path / "notebooks" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if there:
            file.write_text("{}")
        monkeypatch.setenv("JPY_SESSION_NAME", str(file))
        return ItemOutputs("fed-hello/table2_roc631", "smoke")

    assert opened("fed-hello/table2.ipynb").item_id == "fed-hello/table2_roc631"  # one notebook, two items
    assert opened("own/mine-Copy1.ipynb").folder == tmp_path / "figures/smoke/own/mine-Copy1"
    assert (
        opened("fed-hello/Untitled.ipynb", there=False).item_id == "fed-hello/table2_roc631"
    )  # renamed since
    with pytest.raises(BadValue, match="table2-Copy1.ipynb, and fed-hello/table2_roc631 is table2.ipynb's"):
        opened("fed-hello/table2-Copy1.ipynb")
    monkeypatch.setenv("FEDLORA_ITEM", "ffa-lora/table1")  # what runs it knows it best
    assert ItemOutputs("own/mine", "smoke").item_id == "ffa-lora/table1"


def test_a_table_is_exact_in_csv_and_readable_in_markdown(outputs: ItemOutputs) -> None:
    df = pd.DataFrame({"cell": ["a|b", "1e-5"], "mean": [1 / 3, np.nan], "n": [3, 20]})
    assert list(outputs.table(df)["mean"]) == pytest.approx(list(df["mean"]), nan_ok=True)
    back = pd.read_csv(outputs.folder / "table.csv")
    pd.testing.assert_frame_equal(back, df)
    lines = (outputs.folder / "table.md").read_text().splitlines()
    assert [part.strip() for part in lines[2].replace("\\|", "/").strip("|").split("|")] == [
        "a/b",
        "0.333",
        "3",
    ]
    assert [part.strip() for part in lines[3].strip("|").split("|")] == ["1e-5", "–", "20"]
    assert lines[1].split("|")[2].endswith(":")  # numbers to the right


def test_a_pivot_keeps_its_index_and_levels(outputs: ItemOutputs) -> None:
    long = pd.DataFrame({"method": ["a", "a", "b", "b"], "eps": ["6", "1"] * 2, "x": [1.0, 2.0, 3.0, 4.0]})
    outputs.table(long.pivot_table(index="method", columns="eps", values=["x"]), "wide")
    assert (outputs.folder / "wide.csv").read_text() == "method,x 1,x 6\na,2.0,1.0\nb,4.0,3.0\n"


def test_an_empty_table_and_bad_names_are_refused(outputs: ItemOutputs) -> None:
    with pytest.raises(BadValue, match="empty"):
        outputs.table(pd.DataFrame({"a": []}))
    with pytest.raises(BadValue, match="file name"):
        outputs.table(pd.DataFrame({"a": [1]}), "../x")
    with pytest.raises(BadValue, match="sentences"):
        outputs.note("one string")  # type: ignore[arg-type]
    with pytest.raises(BadValue, match="n_seeds"):
        outputs.comparison(pd.DataFrame({c: [1] for c in COLUMNS if c != "n_seeds"}))
    assert not outputs.folder.exists()


def test_a_figure_is_written_twice_the_same_and_closed(outputs: ItemOutputs) -> None:
    contents = []
    for _ in range(2):
        style.set_style()
        fig, ax = plt.subplots()
        ax.plot([1, 2], [3, 4], label="x")
        ax.legend()
        assert outputs.figure(fig) is fig
        assert not plt.fignum_exists(fig.number)
        kinds = ("svg", "png", "pdf")
        contents.append([(outputs.folder / f"figure.{kind}").read_bytes() for kind in kinds])
    assert contents[0] == contents[1]
    assert b"<dc:date>" not in contents[0][0]
    assert contents[0][1].startswith(b"\x89PNG")
    assert contents[0][2].startswith(b"%PDF")
    title = "LoRA and FFA-LoRA without privacy and at ε = 6, 3 and 1.\n"
    assert (outputs.folder / "figure.txt").read_text() == title


HOSTILE = {
    "text.usetex": True,
    "font.weight": "bold",
    "font.family": "serif",
    "lines.linestyle": "--",
    "savefig.transparent": True,
    "xtick.minor.visible": True,
    "axes.xmargin": 0.2,
    "axes.titlelocation": "left",
    "axes.formatter.limits": [-1, 1],
    "legend.loc": "lower left",
    "mathtext.fontset": "cm",
    "path.simplify": False,
    "pdf.compression": 0,
    "svg.fonttype": "none",
}


def test_settings_of_the_machine_do_not_reach_a_figure(
    outputs: ItemOutputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn() -> list[bytes]:
        style.set_style()
        fig, ax = plt.subplots()
        ax.plot([1, 2], [3e-4, 4], label="$x$")
        ax.set(title="t", xlabel="label")
        ax.legend()
        outputs.figure(fig)
        return [(outputs.folder / f"figure.{kind}").read_bytes() for kind in ("svg", "png", "pdf")]

    backend = plt.get_backend()
    plain = drawn()
    with mpl.rc_context(HOSTILE):
        assert drawn() == plain
    assert plt.get_backend() == backend
    own = tmp_path / "own.mplstyle"
    own.write_text("# mine\naxes.labelsize: 12\nsvg.fonttype: none  # letters\n")
    monkeypatch.setenv("FEDLORA_STYLE", str(own))
    assert all(one != other for one, other in zip(drawn(), plain, strict=True))
    for wrong in ("axes.labelsise: 12", "axes.labelsize 12", "axes.labelsize: [", "\xff"):
        own.write_bytes(wrong.encode("latin-1"))
        with pytest.raises(FedloraError, match=r"FEDLORA_STYLE names .*own.mplstyle"):
            style.set_style()
    monkeypatch.setenv("FEDLORA_STYLE", str(tmp_path / "absent"))
    with pytest.raises(FedloraError, match="absent"):
        style.set_style()


def test_small_numbers_are_printed(outputs: ItemOutputs) -> None:
    small = {"lr": [0.005], "gap": [0.0030407], "accuracy": [77.4161]}
    outputs.table(pd.DataFrame({"method": ["lora"], **small}))
    assert re.search(
        r"\| LoRA +\| +0\.005 \| +0\.00304 \| +77\.42 \|", (outputs.folder / "table.md").read_text()
    )
    outputs.privacy(pd.DataFrame({"delta": [1e-5], "q": [2.97e-5], "T": [40]}))
    assert r"$10^{-5}$ & $2.97 \times 10^{-5}$ & 40 \\" in (outputs.folder / "privacy.tex").read_text()
    assert wrong_cells(outputs.folder) == []
    text = (outputs.folder / "privacy.md").read_text()
    (outputs.folder / "privacy.md").write_text(text.replace("1e-05", "0.0000"))
    assert wrong_cells(outputs.folder) == ["privacy.md: delta: 1e-05 is printed as 0.0000"]


def test_a_table_and_a_figure_of_one_name_are_refused(outputs: ItemOutputs) -> None:
    table = pd.DataFrame({"a": [1]})
    outputs.figure(plt.figure(), "x", caption="Kept.")
    outputs.figure(plt.figure(), "x", caption="Kept.")  # a cell that is run once more
    with pytest.raises(BadValue, match=r"'x' is the name of a figure, whose x\.tex this table") as raised:
        outputs.table(table, "x")
    assert raised.value.remedy == "give the table another name"
    assert "Kept." in (outputs.folder / "x.tex").read_text()
    outputs.table(table)
    with pytest.raises(BadValue, match="name of a table"):
        outputs.figure(plt.figure(), "table")
    with pytest.raises(BadValue, match="name of a comparison"):
        outputs.table(table, "comparison")


def test_a_caption_stands_beside_its_figure(outputs: ItemOutputs) -> None:
    fig, ax = plt.subplots()
    ax.plot([0, 1])
    outputs.figure(fig, "views", caption="Accuracy over rounds,\n   by method.")
    assert (outputs.folder / "views.txt").read_text() == "Accuracy over rounds, by method.\n"


def test_every_table_has_its_latex(outputs: ItemOutputs) -> None:
    outputs.table(pd.DataFrame({"method": ["ffa-lora"], "iid": ["70.00 ± 1.50"], "n_k": [3]}))
    text = (outputs.folder / "table.tex").read_text()
    assert r"\begin{tabular}{lrr}" in text
    assert "method & IID & n k" in text
    assert r"FFA-LoRA & 70.00 $\pm$ 1.50 & 3 \\" in text
    outputs.comparison(pd.DataFrame([dict.fromkeys(COLUMNS, 1)]))
    outputs.privacy(pd.DataFrame({"epsilon": [6.0], "sigma": [0.99]}))
    for name in ("comparison", "privacy"):
        assert r"\toprule" in (outputs.folder / f"{name}.tex").read_text()
        assert (outputs.folder / f"{name}.md").is_file()


@pytest.mark.parametrize("comparable", [True, False])
def test_a_printed_comparison_says_where_it_is_none(outputs: ItemOutputs, comparable: bool) -> None:
    row = {**dict.fromkeys(COLUMNS, 1), "cell": "method=lora", "comparable": comparable}
    outputs.comparison(pd.DataFrame([row, {**row, "comparable": True}]))
    tex = (outputs.folder / "comparison.tex").read_text()
    assert tex.startswith("% Not comparable: model,") != comparable
    under_the_rule = tex[tex.index(r"\bottomrule") :]
    assert (r"\multicolumn{6}" in under_the_rule) != comparable
    assert ("Not comparable: model," in under_the_rule) != comparable
    last = (outputs.folder / "comparison.md").read_text().splitlines()[-1]
    assert last.startswith("Not comparable: model,") != comparable


def test_claims_are_written_counted_and_displayed(outputs: ItemOutputs) -> None:
    assert count_claims(read_claims(outputs.folder)) == dict.fromkeys(VERDICTS, 0)
    left_open = judged("not reproduced", "fourth")
    left_open = replace(left_open, verdict=replace(left_open.verdict, reason="so this is undecided"))
    some = [judged(), judged("not reproduced", "second"), judged("not testable", "third"), left_open]
    shown = outputs.claims(some)
    assert [claim["status"] for claim in read_claims(outputs.folder)] == [
        "reproduced",
        "not reproduced",
        "not testable",
        "undecided",
    ]
    assert count_claims(read_claims(outputs.folder)) == dict.fromkeys(VERDICTS, 1)
    records = json.loads((outputs.folder / "claims.json").read_text())
    assert [record["undecided"] for record in records] == [False, False, False, True]
    assert "FFA &lt; LoRA &amp; co" in shown._repr_html_()
    assert "FFA < LoRA & co" in repr(shown)
    record = json.loads((outputs.folder / "claims.json").read_text())[0]
    assert record["evidence"] == {"p": 0.01, "ratio": None}


def test_an_unknown_verdict_is_not_counted_as_something_else(outputs: ItemOutputs) -> None:
    outputs.claims([judged()])
    path = outputs.folder / "claims.json"
    path.write_text(path.read_text().replace('"reproduced"', '"proved"'))
    with pytest.raises(BadValue, match="proved"):
        read_claims(outputs.folder)


def test_comparison_privacy_and_notes_are_files(outputs: ItemOutputs) -> None:
    outputs.comparison(pd.DataFrame([dict.fromkeys(COLUMNS, 1)]))
    outputs.privacy(pd.DataFrame({"epsilon": [6.0], "sigma": [0.99]}))
    shown = outputs.note(["smaller <model>"])
    assert (outputs.folder / "comparison.csv").read_text().startswith("cell,metric,published,")
    assert (outputs.folder / "privacy.csv").read_text() == "epsilon,sigma\n6.0,0.99\n"
    assert json.loads((outputs.folder / "deviations.json").read_text()) == ["smaller <model>"]
    assert "&lt;model&gt;" in shown._repr_html_()
