"""docs/figures.md: what it shows works, and its files are those that are written."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest

mpl.use("Agg")
from matplotlib import pyplot as plt

from fedlora_kit.methods import FedIT
from fedlora_kit.methods.base import METHODS
from fedlora_kit.papers.fed_hello import curves
from fedlora_kit.reporting.comparison import COLUMNS, printed
from fedlora_kit.reporting.outputs import ItemOutputs
from fedlora_kit.study.known_methods import look

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "figures.md").read_text("utf-8")


def some(methods: tuple[str, ...]) -> pd.DataFrame:
    """Two seeds of each method on one split."""
    rows = [
        {"split": "iid", "method": m, "seed": seed, "round": r, "accuracy": 10.0 * r + seed + n}
        for n, m in enumerate(methods)
        for seed in (0, 1)
        for r in (2, 4, 6)
    ]
    return pd.DataFrame(rows)


def legend(fig: mpl.figure.Figure) -> list[str]:
    return [text.get_text() for text in fig.legends[0].get_texts()]


def test_the_recipe_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "(docs/figures.md)" in (ROOT / "README.md").read_text("utf-8")
    folder = tmp_path / "figures/smoke/fed-hello/curves"
    folder.mkdir(parents=True)
    some(("lora", "flexlora")).to_csv(folder / "curves.csv", index=False)
    monkeypatch.chdir(tmp_path)
    (code,) = [c for c in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "curves.figure" in c]
    names: dict[str, object] = {}
    exec(code, names)
    fig = names["fig"]
    assert isinstance(fig, mpl.figure.Figure)
    assert "FlexLoRA" not in legend(fig)
    assert {axes.get_xlabel() for axes in fig.axes} == {"Runde"}
    assert {path.suffix for path in (tmp_path / "talk").iterdir()} == {".pdf", ".svg", ".png"}
    plt.close(fig)


def test_a_method_of_ones_own_is_in_the_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(FedIT):
        name = "mine-of-curves"
        title = "My method"

    monkeypatch.setitem(METHODS, Mine.name, Mine)
    fig = curves.figure(curves.official(), some(("lora", Mine.name)), "ours")
    assert legend(fig)[-1] == "My method"
    (line,) = [line for line in fig.axes[1].lines if line.get_label() == "My method"]
    assert line.get_color() == look(Mine.name).colour
    assert line.get_color() not in {one.get_color() for one in fig.axes[1].lines if one.get_label() == "LoRA"}
    plt.close(fig)


def test_all_lines_of_the_curves_differ_in_grey() -> None:
    methods = tuple(m for m in curves.METHODS if m != "flora")
    fig = curves.figure(curves.official(), some(methods), "ours")
    lines = [line for line in fig.axes[1].lines if not str(line.get_label()).startswith("_")]
    assert len({line.get_marker() for line in lines}) == len(methods)
    plt.close(fig)


def test_a_comparison_as_a_paper_prints_it() -> None:
    empty = dict.fromkeys(COLUMNS, float("nan"))
    known = {"cell": "eps=6|method=ffa-lora", "metric": "accuracy %", "n_seeds": 3}
    both = {"published": 82.03, "published_std": 10.7, "reproduced_mean": 80.5, "reproduced_std": 1.25}
    ours = {**empty, **known, "cell": "eps=none|method=lora", "reproduced_mean": 70.0}
    table = printed(pd.DataFrame([{**empty, **known, **both, "difference": -1.53}, ours]))
    assert table.to_numpy().tolist() == [
        ["ε 6, FFA-LoRA", "accuracy %", "82.03 ± 10.70", "80.50 ± 1.25", 3, "−1.53"]
    ]
    alone = printed(pd.DataFrame([ours]))
    assert alone.to_numpy().tolist() == [["no DP, LoRA", "accuracy %", "–", "70.00", 3, "–"]]


def test_a_caption_for_latex(tmp_path: Path) -> None:
    fig, axes = plt.subplots()
    axes.plot([0, 1])
    out = ItemOutputs("ffa-lora/figure1", "smoke", tmp_path)
    out.figure(fig, caption="Within 95 % of ε_0.")
    assert (out.folder / "figure.tex").read_text() == "\\caption{Within 95 \\% of $\\varepsilon$\\_0.}\n"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_the_latex_of_the_page_compiles(tmp_path: Path) -> None:
    out = ItemOutputs("ffa-lora/figure1", "smoke", tmp_path / "figures")
    fig, axes = plt.subplots(figsize=(3.5, 2))
    axes.plot([0, 1])
    out.figure(fig, caption="Within 95 % of ε, α ∝ 1.")
    ItemOutputs("ffa-lora/table1", "smoke", tmp_path / "figures").table(pd.DataFrame({"a_b": ["−1 ± 2 %"]}))
    (code,) = re.findall(r"```latex\n(.*?)```", PAGE, re.DOTALL)
    packages, body = code.replace("…", "x").split("\n", 1)
    text = f"\\documentclass{{article}}\n{packages}\n\\begin{{document}}{body}\\end{{document}}\n"
    (tmp_path / "page.tex").write_text(text)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]
