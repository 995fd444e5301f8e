"""The gallery and the README's part of it: real results, small files, links that lead somewhere."""

from __future__ import annotations

import importlib.util
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from page_tools import accuracy, fill
from PIL import Image

from fedlora_kit.errors import BadValue

ROOT = Path(__file__).resolve().parent.parent
_spec = importlib.util.spec_from_file_location("gallery", ROOT / "tools" / "gallery.py")
assert _spec is not None
assert _spec.loader is not None
gallery = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(gallery)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path))
    monkeypatch.delenv("FEDLORA_STAGING", raising=False)
    monkeypatch.delenv("FEDLORA_RUNS", raising=False)
    fill()
    (tmp_path / "README.md").write_text(f"before\n{gallery.BEGIN}\nyesterday\n{gallery.END}\nafter\n")
    return tmp_path


def links(text: str) -> list[str]:
    return re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)


def test_the_page_gets_the_numbers_claims_and_pictures_of_the_items(home: Path) -> None:
    folder = gallery.make(home / "figures", "smoke", home)
    text = (home / "docs/gallery.md").read_text()
    mean = np.mean([accuracy("lora", "iid", seed) for seed in range(3)])
    assert (
        f"| LoRA · IID | accuracy % | 85.00 ± 1.10 | {mean:.2f} ± 1.70 | 3 | −3.30 [−7.52, +0.92] |" in text
    )
    assert "**Not comparable**" in text
    assert "| ffa-lora | `smoke` | 1 of 11 | 2 | 1 | 0 | 0 |" in text
    assert "* *not reproduced*: Loss is smaller." in text
    (absent,) = [line for line in text.splitlines() if line.startswith("Without results")]
    assert "`fed-hello/table2`" in absent  # it is there, but damaged
    assert "`ffa-lora/table1`" not in absent
    assert links(text)
    assert all((home / "docs" / link).is_file() for link in links(text))
    assert (folder / "ffa-lora-table1.md").read_text().startswith("| method")


def test_the_readme_gets_every_profiles_counts_and_a_figure_alone(home: Path) -> None:
    shutil.copytree(home / "figures/smoke", home / "figures/paper")
    gallery.make(home / "figures", "smoke", home)
    text = (home / "README.md").read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "yesterday" not in text
    for profile in ("smoke", "paper"):
        assert f"| ffa-lora | `{profile}` | 1 of 11 | 2 | 1 | 0 | 0 |" in text
    assert "| ffa-lora | `small` |" not in text
    assert [(home / link).is_file() for link in links(text)] == [True]
    assert "85.00 ± 1.10" not in text  # that is the page's
    assert len(text.splitlines()) < 60


def test_a_second_time_changes_nothing(home: Path) -> None:
    gallery.make(home / "figures", "smoke", home)
    first = {p.name: p.read_bytes() for p in (home / "figures/smoke/gallery").iterdir()}
    both = [(home / name).read_text() for name in ("README.md", "docs/gallery.md")]
    gallery.make(home / "figures", "smoke", home)
    assert {p.name: p.read_bytes() for p in (home / "figures/smoke/gallery").iterdir()} == first
    assert [(home / name).read_text() for name in ("README.md", "docs/gallery.md")] == both


def test_a_heavy_picture_becomes_light() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (220, 340, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    small = gallery.light(buffer.getvalue())
    assert len(small) <= gallery.PICTURE < buffer.tell()
    assert Image.open(io.BytesIO(small)).size == (340, 220)


def test_without_marks_or_results_nothing_is_written(home: Path) -> None:
    with pytest.raises(BadValue, match="has results"):
        gallery.make(home / "figures", "small", home)
    (home / "README.md").write_text("no marks")
    with pytest.raises(BadValue, match="no place"):
        gallery.make(home / "figures", "smoke", home)
    assert (home / "README.md").read_text() == "no marks"
    assert not (home / "figures/smoke/gallery").exists()
    assert not (home / "docs").exists()


def test_results_without_their_runs_are_no_gallery(home: Path) -> None:
    shutil.rmtree(home / "data" / "runs")
    with pytest.raises(BadValue, match="none of the runs"):
        gallery.make(home / "figures", "smoke", home)


def test_the_gallery_in_git_is_small_and_whole() -> None:
    text = (ROOT / "README.md").read_text()
    gallery.between(text, "")
    shown = [ROOT / link for link in links(text) if link.startswith("figures/")]
    shown += [ROOT / "docs" / link for link in links((ROOT / "docs/gallery.md").read_text())]
    assert len(shown) > 2
    assert all(path.is_file() for path in shown)
    sizes = [path.stat().st_size for path in ROOT.glob("figures/*/gallery/*")]
    assert sum(sizes) < gallery.WHOLE
    assert max(sizes) <= gallery.PICTURE
