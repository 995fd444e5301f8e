"""The script that checks a GPU, in its tiny form on a CPU: it answers, it finds faults, it keeps its time."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
import torch

from fedlora_kit.experiments import run as run_module
from fedlora_kit.experiments.setup import build
from fedlora_kit.training import stacked

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

import gpu_acceptance
from acceptance import frame, processes, same
from acceptance.frame import Bench, Check

CPU = torch.device("cpu")
NAMES = [check.name for check in gpu_acceptance.CHECKS]


@pytest.fixture(scope="module", autouse=True)
def warm():
    """What every forked process would otherwise read and encode anew."""
    for spec in (processes.small_run(), processes.small_run(private=True)):
        spec.key()
        build(spec, CPU)


def report(out):
    return json.loads((out / "acceptance.json").read_text())


def test_the_tiny_form_passes_or_says_why_it_skips(tmp_path, capsys):
    """All but the checks of processes, which have a test of their own."""
    wanted = [name for name in NAMES if name not in ("naming", "resume", "side by side")]
    code = gpu_acceptance.main(["--out", str(tmp_path), "--device", "cpu", "--tiny", "--only", *wanted])
    found = {check["name"]: check for check in report(tmp_path)["checks"]}
    ends = {name: check["status"] for name, check in found.items()}
    skipped = {"determinism", "plan", "waits", "compiled", "4 bits"}
    assert ends == {name: "skipped" if name in skipped else "passed" for name in wanted}, found
    assert code == 0
    assert all(check["reason"] for check in found.values() if check["status"] == "skipped")
    assert all(check["figures"] for check in found.values() if check["status"] == "passed")
    page = (tmp_path / "acceptance.md").read_text()
    assert all(f"| {name} |" in page for name in wanted)
    assert all(line.count(" | ") >= 3 for line in page.splitlines() if line.startswith("| "))
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def bench(tmp_path):
    return Bench(CPU, True, tmp_path)


def missed(result):
    return [figure.name for figure in result.figures if figure.holds is False]


def test_a_killed_run_goes_on_and_a_run_that_forgets_does_not_pass(tmp_path, monkeypatch):
    right = Check("resume", "", 60, processes.resumed).run(bench(tmp_path / "right"), 60)
    assert (right.status, len(right.figures)) == ("passed", 3)
    unpack = run_module._unpack

    def forgets(checkpoint):
        now = unpack(checkpoint)
        if now is not None:
            now.state = {name: tensor * 0.9 for name, tensor in now.state.items()}
        return now

    monkeypatch.setattr(run_module, "_unpack", forgets)
    wrong = Check("resume", "", 60, processes.resumed).run(bench(tmp_path / "wrong"), 60)
    assert missed(wrong) == ["text, DP by rows, deterministic: the same adapter and history"]


def test_a_process_that_fails_or_dies_is_told(tmp_path):
    assert processes.ask(CPU, max, (1, 2), (5, 4)) == [2, 5]
    assert [str(end) for end in processes.ask_all(CPU, (os._exit, 3))] == ["exit code 3"]
    with pytest.raises(processes.Ended, match="ZeroDivisionError"):
        processes.ask(CPU, divmod, (1, 0))


def unclipped(monkeypatch):
    def sums(gradients, owners, clips, clients):
        return gradients.new_zeros(clients, gradients.shape[1]).index_add_(0, owners, gradients)

    monkeypatch.setattr(stacked, "clipped_sums", sums)


def noise_without_a_seed_of_its_own(monkeypatch):
    draw = stacked.draw_noise

    def same_for_all(std, shapes, generator, like):
        return draw(std, shapes, torch.Generator().manual_seed(5), like)

    monkeypatch.setattr(stacked, "draw_noise", same_for_all)


def too_little_noise(monkeypatch):
    draw = stacked.draw_noise
    monkeypatch.setattr(stacked, "draw_noise", lambda std, *rest: draw(0.9 * std, *rest))


def losses_a_little_too_large(monkeypatch):
    losses = stacked.losses_of
    monkeypatch.setattr(stacked, "losses_of", lambda *a, **k: 1.01 * losses(*a, **k))


@pytest.mark.parametrize(
    ("fault", "body", "wanted"),
    [
        (unclipped, same.private, "rows against one backward pass an example"),
        (noise_without_a_seed_of_its_own, same.private, "two clients' noise: |correlation| in its errors"),
        (too_little_noise, same.private, "noise of client 0: variance off 1, in its errors"),
        (losses_a_little_too_large, same.cpu_is_device, "text, unequal stack: loss"),
    ],
)
def test_a_planted_fault_is_found(tmp_path, monkeypatch, fault, body, wanted):
    fault(monkeypatch)
    monkeypatch.setattr(same, "TINY", same.TINY[:1])
    result = Check("planted", "", 60, body).run(bench(tmp_path), 60)
    assert result.status == "failed", result.reason
    assert wanted in missed(result)
    assert wanted in result.reason


def test_a_check_that_breaks_is_recorded_and_the_next_one_runs(tmp_path):
    def breaks(bench):
        bench.note("before", 1)
        raise RuntimeError("no kernel | for this")

    def nan(bench):
        bench.at_most("loss", float("nan"), 1.0)

    checks = [
        Check("broken", "does it break?", 1, breaks),
        Check("nan", "", 1, nan),
        Check("fine", "", 1, lambda bench: bench.equal("one", 1, 1)),
    ]
    results = frame.run_all(checks, bench(tmp_path), 1, tmp_path)
    assert [r.status for r in results] == ["failed", "failed", "passed"]
    assert results[0].reason == "RuntimeError: no kernel | for this"
    assert [figure["value"] for figure in report(tmp_path)["checks"][0]["figures"]] == [1]
    assert "no kernel \\| for this" in (tmp_path / "acceptance.md").read_text()


def test_what_does_not_fit_into_the_time_is_listed_as_not_run(tmp_path):
    checks = [Check("long", "", 1000, lambda bench: None), Check("short", "", 1, lambda bench: None)]
    large = Bench(CPU, False, tmp_path)
    results = frame.run_all(checks, large, 1, tmp_path)
    assert [r.status for r in results] == ["not run", "passed"]
    assert "takes about 1000" in report(tmp_path)["checks"][0]["reason"]


def test_a_check_that_hangs_is_broken_off(tmp_path):
    begun = time.monotonic()
    result = Check("hangs", "", 0, lambda bench: time.sleep(30)).run(bench(tmp_path), 1.2)
    assert time.monotonic() - begun < 10
    assert (result.status, "TimeIsUp" in result.reason) == ("failed", True)


def test_results_are_there_while_later_checks_still_run(tmp_path):
    def look(bench):
        bench.equal("first is known", report(tmp_path)["checks"][0]["status"], "passed")

    results = frame.run_all(
        [Check("a", "", 1, lambda b: None), Check("b", "", 1, look)], bench(tmp_path), 1, tmp_path
    )
    assert [r.status for r in results] == ["passed", "passed"]


def test_only_checks_that_exist_can_be_chosen(tmp_path, capsys):
    with pytest.raises(SystemExit):
        gpu_acceptance.main(["--out", str(tmp_path), "--device", "cpu", "--only", "teleport"])
    assert "no check is called teleport" in capsys.readouterr().err


@pytest.mark.gpu
def test_the_tiny_form_on_a_gpu(tmp_path):
    assert gpu_acceptance.main(["--out", str(tmp_path), "--tiny"]) == 0
