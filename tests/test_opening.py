"""What a notebook shows before it runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from page_tools import fill, finish, key

from fedlora_kit import notebook
from fedlora_kit.paths import runs_dir
from fedlora_kit.reporting.opening import opening
from fedlora_kit.reporting.outputs import item_folder

ITEM = "ffa-lora/table1"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path))
    monkeypatch.delenv("FEDLORA_RUNS", raising=False)
    monkeypatch.delenv("FEDLORA_STAGING", raising=False)
    return tmp_path


def test_after_a_run_its_time_verdicts_and_picture() -> None:
    fill()
    folder = item_folder(ITEM, "smoke")
    found = opening(ITEM, "smoke", folder)
    # eleven runs of 1.5 s are in the store, one is not
    assert found.time == (
        "Time: 1 of the last time's 12 runs are not in the store and are trained, about 1.5 s, one "
        "after the other."
    )
    assert found.last == "Last time (2026-01-31): of the claims 2 reproduced, 1 not reproduced."
    assert found.picture == folder / "figure.png"
    (folder / "figure.png").unlink()
    assert opening(ITEM, "smoke", folder).picture == folder / "table.md"


def test_an_item_without_runs_takes_as_long_as_the_last_time() -> None:
    fill()
    assert opening("x", "smoke", item_folder("fedlora-optimizer/global", "smoke")).time == (
        "Time: about 90 s, as the last time."
    )


def test_before_any_run_the_number_of_runs_and_the_kits_own_picture(home: Path) -> None:
    folder = item_folder(ITEM, "smoke")
    found = opening(ITEM, "smoke", folder)
    assert found.time.startswith("Time: 160 training runs, less those that the store has already.")
    assert "`fedlora plan ffa-lora/table1 --profile smoke`" in found.time
    assert (found.last, found.picture) == ("", None)
    gallery = home / "figures/smoke/gallery"
    gallery.mkdir(parents=True)
    (gallery / "ffa-lora-table1.md").write_text("| a |\n")
    assert opening(ITEM, "smoke", folder).picture == gallery / "ffa-lora-table1.md"
    assert "Not run here yet" in opening(ITEM, "smoke", folder).last


@pytest.mark.parametrize("status", ["{", "[]", '{"status": "ok"}', '{"status": "failed"}'])
def test_damaged_or_failed_outputs_are_no_last_time(status: str) -> None:
    folder = finish("own/x")
    (folder / "status.json").write_text(status)
    found = opening("own/x", "smoke", folder)
    assert (found.time, found.last, found.picture) == ("", "", None)


def test_a_damaged_run_does_not_stop_a_notebook() -> None:
    fill()
    (runs_dir() / key("lora", "iid", 0) / "provenance.json").write_text("{")
    assert "160 training runs" in opening(ITEM, "smoke", item_folder(ITEM, "smoke")).time


@pytest.mark.parametrize("headless", [True, False])
def test_a_notebook_run_headlessly_shows_its_title_alone(
    headless: bool, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import IPython.display

    fill()
    shown: list[object] = []
    monkeypatch.setattr(IPython.display, "display", shown.append)
    if headless:
        monkeypatch.setenv("FEDLORA_STAGING", str(home / "staging"))
    notebook.begin(ITEM, "smoke")
    assert len(shown) == (1 if headless else 3)
