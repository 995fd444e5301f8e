"""Colours, markers and line styles: one of each for a method, everywhere, for every eye."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb

from fedlora_kit import looks
from fedlora_kit.methods import METHODS
from fedlora_kit.reporting import style
from fedlora_kit.study.statistics import mean_interval

ROOT = Path(__file__).resolve().parent.parent
TOGETHER = {
    "fed-hello": ["lora", "fed-hello", "fedra", "hetlora", "exclusive", "flexlora", "straggler", "flora"],
    "strategies": ["gd-hla", "rgd-hla", "fim-hla", "fed-hello"],
    "fedlora-optimizer": ["lora", "ffa-lora", "fedlora-optimizer", "fedsa-lora", "ditto", "local-only"],
    "ffa-lora": ["lora", "ffa-lora", "full fine-tuning"],
}
# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB
EYES = {
    "usual": np.eye(3),
    "protan": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "deutan": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "tritan": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}  # fmt: skip


def lab(colour: str, eye: str) -> np.ndarray:
    """CIELAB of a colour as an eye sees it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(EYES[eye]) @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ seen
    f = np.cbrt(xyz / [0.9505, 1, 1.089])
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_every_registered_method_has_a_look_that_no_other_has() -> None:
    missing = set(METHODS) - set(looks.known())  # a method on trial is given one by its name
    assert not missing & {name for names in TOGETHER.values() for name in names}
    assert len(METHODS) - len(missing) >= 16
    found = [looks.of_method(name) for name in looks.known()]
    assert len({(one.colour, one.marker, one.dash) for one in found}) == len(found)
    assert len({one.title for one in found}) == len(found)


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize("figure", TOGETHER)
def test_methods_of_one_figure_can_be_told_apart(figure: str, eye: str) -> None:
    for one, other in combinations(TOGETHER[figure], 2):
        a, b = looks.of_method(one), looks.of_method(other)
        assert np.linalg.norm(lab(a.colour, eye) - lab(b.colour, eye)) > 15, (one, other)
        assert a.marker != b.marker


def test_a_new_method_looks_the_same_everywhere() -> None:
    one = looks.of_method("my-own")
    assert one == looks.of_method("my-own")
    assert one.title == "my-own"
    assert one.colour not in {looks.of_method(name).colour for name in looks.known()}
    assert looks.of_method("FedIT") == looks.of_method("lora")
    assert looks.of_method("ffa_lora") == looks.of_method("FFA-LoRA")


@pytest.mark.parametrize("eye", EYES)
def test_a_new_method_is_taken_for_no_other(eye: str) -> None:
    new = [looks.of_method(f"my-own-{n}") for n in range(40)]
    for colour in {one.colour for one in new}:
        for name in looks.known():
            apart = np.linalg.norm(lab(colour, eye) - lab(looks.of_method(name).colour, eye))
            assert apart > 15, (colour, name)
    markers = {looks.of_method(name).marker for name in TOGETHER["fed-hello"]}
    assert markers.isdisjoint(one.marker for one in new)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 9])
def test_a_ramp_grows_darker(n: int) -> None:
    colours = looks.ramp(n)
    assert len(set(colours)) == n
    light = [lab(colour, "usual")[0] for colour in colours]
    assert light == sorted(light, reverse=True)


def test_nothing_but_the_looks_types_a_colour() -> None:
    files = [
        *(ROOT / "fedlora_kit/papers").rglob("*.py"),
        *(ROOT / "fedlora_kit/reporting").glob("*.py"),
        *(ROOT / "notebooks").rglob("*.py"),
    ]
    typed = re.compile(
        r"""["']#[0-9a-fA-F]{6}["']|["'](tab:\w+|C\d|red|green|blue|orange|purple|brown|pink)["']"""
    )
    grid = '"grid.color": "#e3e3e3"'
    found = [
        f"{path.name}: {line.strip()}"
        for path in files
        for line in path.read_text().splitlines()
        if typed.search(line) and grid not in line
    ]
    assert found == [], "take colours from fedlora_kit.looks, which all figures share"


def test_a_band_is_the_interval_of_the_mean() -> None:
    rows = [(x, seed, value) for x in (1, 2) for seed, value in enumerate((1.0 * x, 2.0, 4.0))]
    curves = pd.DataFrame(rows, columns=["round", "seed", "accuracy"])
    fig, axes = plt.subplots()
    style.mean_band(axes, curves, "round", "accuracy", looks.of_method("fed-hello"))
    (line,) = axes.lines
    assert line.get_label() == "Fed-HeLLo"
    np.testing.assert_allclose(line.get_ydata(), [7 / 3, 8 / 3])
    corners = axes.collections[0].get_paths()[0].vertices
    expected = mean_interval([1.0, 2.0, 4.0])
    at = corners[corners[:, 0] == 1][:, 1]
    np.testing.assert_allclose([at.min(), at.max()], [expected.lower, expected.upper])
    plt.close(fig)


def test_one_seed_has_no_band() -> None:
    fig, axes = plt.subplots()
    curves = pd.DataFrame({"round": [1, 2], "accuracy": [3.0, 4.0]})
    style.mean_band(axes, curves, "round", "accuracy", looks.of_method("lora"), mark=True)
    assert not axes.collections
    assert axes.lines[0].get_marker() == "o"
    plt.close(fig)


@pytest.mark.parametrize("width", [looks.SINGLE, looks.DOUBLE])
def test_a_figure_is_saved_at_the_size_of_a_column(width: float, tmp_path: Path) -> None:
    style.set_style()
    fig, axes = plt.subplots(figsize=(width, 2.5))
    axes.plot([0, 1], [0, 1], label="x")
    axes.set(xlabel="round", ylabel="accuracy, %")
    pdf, svg, png = style.save(fig, tmp_path)
    plt.close(fig)
    box = re.search(rb"/MediaBox \[ 0 0 ([0-9.]+) ([0-9.]+) \]", pdf.read_bytes())
    assert box is not None
    np.testing.assert_allclose([float(v) / 72 for v in box.groups()], [width, 2.5], rtol=1e-3)
    assert f'width="{width * 72:g}pt"' in svg.read_text()
    assert plt.imread(png).shape[1] == int(width * 200)
    assert b"Type3" not in pdf.read_bytes()
