"""What needs processes of its own: names of devices, killed runs, runs side by side."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch

from acceptance.frame import Bench
from acceptance.worlds import Trainer, changed, federation, paper_run, short
from fedlora_kit.devices import DETERMINISTIC, release, resolve_device
from fedlora_kit.experiments.checkpoints import CheckpointFolder
from fedlora_kit.experiments.run import run
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.papers.runs_of import planned_items
from fedlora_kit.planning.rate import given_rate
from fedlora_kit.study.plan import plan


class Ended(Exception):
    """A process ended without an answer."""


def ask(device: torch.device, body: Callable[..., Any], *each: Sequence[Any]) -> list[Any]:
    """What ``body`` returns in a fresh process for each list of arguments, all at the same time.

    A process that starts CUDA cannot be forked from one that has.

    Raises:
        Ended: one failed, or was killed; with its traceback or exit code.
    """
    answers = ask_all(device, *((body, *arguments) for arguments in each))
    for answer in answers:
        if isinstance(answer, Ended):
            raise answer
    return answers


def ask_all(device: torch.device, *each: Sequence[Any]) -> list[Any]:
    """The same for several functions, each with its arguments; an `Ended` for one without an answer."""
    context: Any = multiprocessing.get_context("spawn" if device.type == "cuda" else "fork")
    running, answers = [], []
    try:
        for call in each:
            mine, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_answer, args=(theirs, *call), daemon=True)
            process.start()
            theirs.close()
            running.append((process, mine))
        for process, line in running:
            try:
                done, answer = line.recv()
                answers.append(answer if done else Ended(answer))
                process.join()
            except EOFError:
                process.join()
                answers.append(Ended(f"exit code {process.exitcode}"))
    finally:
        for process, _ in running:
            if process.is_alive():
                process.kill()
    return answers


def _answer(line: Connection, body: Callable[..., Any], *arguments: Any) -> None:
    warnings.simplefilter("ignore")
    try:
        line.send((True, body(*arguments)))
    except BaseException:
        line.send((False, traceback.format_exc()[-1500:]))


def trained(
    description: str, device: str, root: str, kill: bool = False, deterministic: bool = True
) -> dict[str, Any]:
    """A run of the store, as a value; or this process killed once its first checkpoint is written."""
    os.environ[DETERMINISTIC] = "1" if deterministic else "0"
    if kill:
        save = CheckpointFolder.save

        def last(*arguments: Any) -> None:
            save(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)

        CheckpointFolder.save = last  # type: ignore[method-assign]
    entry = run(RunSpec.model_validate_json(description), device=device, store=Store(Path(root)))
    return {
        "end": [entry.results["adapter_digest"], entry.history],
        "resumed": entry.provenance["resumed_after_round"],
        "device": entry.provenance["device"],
        "peak": entry.provenance["peak_memory_bytes"]["cuda"],
    }


def small_run(private: bool = False, item: str = "ffa-lora/table1", **parts: Any) -> RunSpec:
    """A run of a few seconds on one of the kit's own backbones."""
    method_name = "ffa-lora" if private else "lora"
    spec = paper_run(item, "smoke", method_name=method_name, private=private)
    return changed(
        spec,
        local={"steps": 2, "batch_size": 8},
        data={"holdout": 0, "train_limit": 90, "eval_limit": 8},
        rounds={"rounds": 3, "eval_every": 0},
        **parts,
    )


def without_cuda(root: str) -> bool:
    """A run on the CPU and a plan, in a process that has done nothing else: whether CUDA is untouched."""
    run(small_run(), device="cpu", store=Store(Path(root)))
    items = planned_items("smoke", {"start_here": {"seeds": 1}})
    plan("smoke", items, lambda _: given_rate(1.0), Store(Path(root)))
    return not torch.cuda.is_initialized()


def naming(bench: Bench) -> None:
    """The device as it is called, in a fresh process; what needs none leaves CUDA alone."""
    root = str(bench.folder / "naming")
    [found] = ask(bench.device, trained, (small_run().model_dump_json(), str(bench.device), root))
    bench.equal("kind of device in the record", found["device"]["type"], bench.device.type)
    if bench.device.type == "cuda":
        bench.equal("index in the record", found["device"]["index"], bench.device.index)
        bench.equal("name in the record", found["device"]["name"], torch.cuda.get_device_name(bench.device))
        bench.at_least("peak in the record", found["peak"], 1, "bytes")
        [untouched] = ask(bench.device, without_cuda, (str(bench.folder / "untouched"),))
        bench.equal("a run on the CPU and a plan leave CUDA alone", untouched, True)


def resumed(bench: Bench) -> None:
    """Killed after its first round and gone on in another process: the same bits?"""
    kinds = {
        "text, unequal stack": small_run(),
        "text, DP by rows": small_run(private=True),
        "image, bf16": changed(small_run(item="fed-hello/table2"), precision="bf16"),
        "causal, dropout, checkpointing": changed(
            small_run(item="ffa-lora/gsm8k"), model={"gradient_checkpointing": True}
        ),
    }
    modes = (True, False) if bench.device.type == "cuda" else (True,)
    if bench.tiny:
        kinds = {name: spec for name, spec in kinds.items() if name == "text, DP by rows"}
    cases = [(name, spec, on) for on in modes for name, spec in kinds.items()]

    def call(place: int, folder: str, kill: bool = False) -> tuple[Any, ...]:
        _, spec, deterministic = cases[place]
        root = str(bench.folder / f"resume-{place}" / folder)
        return trained, spec.model_dump_json(), str(bench.device), root, kill, deterministic

    places = range(len(cases))
    first = ask_all(bench.device, *(call(p, f, f == "cut") for p in places for f in ("whole", "cut")))
    second = ask_all(bench.device, *(call(p, "cut") for p in places))
    for place, (name, _, deterministic) in enumerate(cases):
        whole, cut, after = first[2 * place], first[2 * place + 1], second[place]
        how = f"{name}, {'deterministic' if deterministic else 'not deterministic'}"
        bench.equal(f"{how}: killed", str(cut), "exit code -9")
        for part in (whole, after):
            if isinstance(part, Ended):
                raise part
        bench.equal(f"{how}: goes on after round", after["resumed"], 0)
        same = after["end"] == whole["end"]
        if deterministic:
            bench.equal(f"{how}: the same adapter and history", same, True)
        else:
            bench.note(f"{how}: the same adapter and history", same)


def _rounds(description: str, device: str, times: int, together: Barrier) -> tuple[float, float]:
    """When some rounds of one client began and ended, after all processes were ready."""
    where = resolve_device(device)
    torch.set_num_threads(1)
    trainer = Trainer(federation(RunSpec.model_validate_json(description), where))
    trainer.once()
    together.wait(120)
    begun = time.monotonic()
    for r in range(times):
        trainer.once(r)
    return begun, time.monotonic()


def side_by_side(bench: Bench) -> None:
    """Steps a second of DP runs of RoBERTa-base, by the number of processes."""
    profile = "smoke" if bench.tiny else "small"
    spec = short(paper_run("ffa-lora/table1", profile, method_name="ffa-lora", private=True), bench.tiny, 5)
    text, times = spec.model_dump_json(), 1 if bench.tiny else 4
    context: Any = multiprocessing.get_context("spawn" if bench.device.type == "cuda" else "fork")
    alone = 0.0
    for processes in (1, 2) if bench.tiny else (1, 2, 4, 8):
        release()
        free = torch.cuda.mem_get_info(bench.device)[0] if bench.device.type == "cuda" else 0
        together = context.Barrier(processes)
        spans = ask(bench.device, _rounds, *[(text, str(bench.device), times, together)] * processes)
        seconds = max(end for _, end in spans) - min(begun for begun, _ in spans)
        rate = processes * times * spec.local.steps / seconds
        alone = alone or rate
        bench.note(f"{processes} at a time", rate, "steps/s")
        bench.note(f"{processes} at a time, against one", rate / alone)
        if bench.device.type == "cuda":
            left = torch.cuda.mem_get_info(bench.device)[0]
            bench.at_most(
                f"{processes} at a time: memory kept afterwards, of what was free", 1 - left / free, 0.05
            )
