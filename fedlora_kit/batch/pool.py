"""Many notebooks: each in a process of its own, some at a time, the failure of one leaving the rest alone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import uuid
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO

from fedlora_kit.batch import forked, worker
from fedlora_kit.batch.folders import LOG_FILE, NOTEBOOK_FILE, Staging
from fedlora_kit.batch.order import Order, Todo
from fedlora_kit.batch.progress import Reporter, Running
from fedlora_kit.batch.status import OK, Status, now, read_status
from fedlora_kit.disk import disk_guard
from fedlora_kit.running.places import cores
from fedlora_kit.running.pools import without_script
from fedlora_kit.study.item import Item
from fedlora_kit.surroundings import python_path

_TICK = 0.1  # seconds
_GRACE = 15.0  # seconds that a worker has to stop its kernel
_SERVER_DIED = 255  # what multiprocessing says of a process whose server is gone: it may still live
_MOST = 4  # notebooks at a time, unless the user says
_MEMORY = 3 * 2**29  # bytes that a notebook and its kernel take, about
_MEMINFO = Path("/proc/meminfo")
_CGROUPS = Path("/sys/fs/cgroup")  # as a container sees its own


@dataclass
class _Child:
    item: Item
    process: BaseProcess
    staging: Staging
    errors: IO[bytes]
    lifeline: Connection
    running: Running
    status: Status  # as it will be if the worker dies
    looked: float = 0.0
    stamp: int = 0


def run(todo: Todo, side_by_side: bool, reporter: Reporter) -> list[Status]:
    """Run the notebooks, some at a time; how they ended. Each one's runs may use ``FEDLORA_JOBS`` processes,
    and its own cells as many threads: the machine's cores over the notebooks at a time, unless the variables
    are set already. Ctrl-C stops every kernel, then raises.

    Args:
        side_by_side: whether what they need is trained, so that several may go at a time (`Order.jobs`).
    """
    waiting, children, ended = list(todo.run), list[_Child](), list[Status]()
    jobs = todo.order.jobs or (_fitting(len(waiting)) if side_by_side else 1)
    share = max(1, cores() // max(1, min(jobs, len(waiting))))
    try:
        reporter.begin(len(todo.run) + len(todo.unchanged))
        for status in todo.unchanged:
            reporter.end(status)
        while waiting or children:
            while waiting and len(children) < jobs:
                item, crashed = waiting.pop(0)
                children.append(_start(item, crashed, todo.order, share))
                if side_by_side:
                    children[-1].running.expected = None  # it was the time of its training, too
                reporter.start(children[-1].running)
            time.sleep(_TICK)
            for child in [one for one in children if one.process.exitcode is not None]:
                children.remove(child)
                ended.append(_collect(child))
                reporter.end(ended[-1])
            for child in children:
                _look(child)
            reporter.tick([child.running for child in children], len(waiting))
    finally:
        _stop(children)
    return ended


def _start(item: Item, crashed: Status, order: Order, share: int) -> _Child:
    run = uuid.uuid4().hex
    staging = Staging(item.id, order.profile, order.place, run)
    staging.open()
    before = read_status(staging.final)
    expected = before.seconds if before is not None and before.status == OK else None
    threads = {"OMP_NUM_THREADS": str(share)} if share < cores() else {}
    variables = {"FEDLORA_JOBS": str(share), **threads, **os.environ, "PYTHONPATH": python_path()}
    errors = (staging.root / "worker.log").open("w+b")
    processes = forked.context()
    theirs, lifeline = processes.Pipe(duplex=False)
    job = theirs, variables, errors.name, item, crashed, str(order.place), order.timeout, run
    process = processes.Process(target=worker.main, args=job)
    with without_script():
        process.start()
    theirs.close()
    running = Running(item.id, time.monotonic(), expected)
    return _Child(item, process, staging, errors, lifeline, running, crashed)


def _collect(child: _Child) -> Status:
    """The status of an ended worker; a worker that died without one is recorded as a failure here."""
    code = child.process.exitcode or 0
    if code == _SERVER_DIED and child.process.pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.process.pid, signal.SIGKILL)
    child.errors.seek(0)
    said = child.errors.read().decode(errors="replace").strip()
    _close(child)
    if code in (0, 1):
        status = read_status(child.staging.final)
        if status is not None and (status.status == OK) == (code == 0):
            return status
    how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
    last = said.splitlines()[-1] if said else ""
    error = said if code == 2 else f"the notebook's process {how}{': ' + last if last else ''}"
    with disk_guard(child.staging.final):
        child.staging.folder.mkdir(parents=True, exist_ok=True)
        with (child.staging.folder / LOG_FILE).open("a", encoding="utf-8") as log:
            log.write(f"\n{error}\n{said}\n")
        seconds = round(child.running.elapsed(), 3)
        return child.staging.fail(replace(child.status, error=error, seconds=seconds, finished=now()))


def _look(child: _Child) -> None:
    """How many cells are behind us, from the notebook that papermill saves after each."""
    moment = time.monotonic()
    if moment - child.looked < 2.0:
        return
    child.looked = moment
    path = child.staging.folder / NOTEBOOK_FILE
    try:
        if (stamp := path.stat().st_mtime_ns) == child.stamp:
            return
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        child.stamp = stamp
    except (OSError, ValueError, KeyError):
        return  # not there yet, or half written: the next look will see it
    code = [cell for cell in cells if cell.get("cell_type") == "code"]
    ended = sum(bool(cell["metadata"].get("papermill", {}).get("end_time")) for cell in code)
    child.running.done = ended / len(code) if code else 0.0


def _stop(children: list[_Child]) -> None:
    for child in children:
        child.process.terminate()
    deadline = time.monotonic() + _GRACE
    for child in children:
        child.process.join(max(0.1, deadline - time.monotonic()))
        child.process.kill()
        _close(child)
        child.staging.drop()


def _close(child: _Child) -> None:
    child.process.join()
    child.errors.close()
    child.lifeline.close()


def _fitting(notebooks: int) -> int:
    """Notebooks at a time that only read the store."""
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux
        free = _MOST * _MEMORY
    free = min([free, *_container_memory()])
    return max(1, min(notebooks, cores(), _MOST, int(free // _MEMORY)))


def _container_memory() -> list[int]:
    """Bytes that the container's limit leaves, which the host's figures do not know of; empty without one.

    File pages that nobody uses count as free, as the kernel takes them back first.
    """
    found = []
    for folder, limit, used, idle in (
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        place = _CGROUPS / folder
        with contextlib.suppress(OSError, ValueError):  # another version, or the limit "max"
            left = int((place / limit).read_text("utf-8")) - int((place / used).read_text("utf-8"))
            with contextlib.suppress(OSError, KeyError, ValueError):
                stat = dict(line.split() for line in (place / "memory.stat").read_text("utf-8").splitlines())
                left += int(stat[idle])
            found.append(left)
    return found
