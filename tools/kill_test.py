"""Kill training runs, store writes and notebook batches by SIGKILL at random moments, and compare the ends.

    python tools/kill_test.py --kills 50

Each of the three kinds is killed that many times and started again; whatever a killed process leaves is
looked at before the next start (no entry, checkpoint or output folder may be torn), and the end must be bit
by bit that of an uninterrupted process. Prints figures; the exit status is 0 only if nothing was found.

In a batch the victim is drawn: the batch's own process, a notebook's process, or its kernel.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

KINDS = ("runs", "store", "batches")
#: what differs between two equal runs: when, where and how long
VARYING = {"provenance.json", "manifest.json"}


@dataclass
class Figures:
    """What happened to one kind."""

    kind: str
    kills: int = 0
    finished: int = 0
    resumed: int = 0
    seconds: float = 0.0

    def line(self) -> str:
        return (
            f"{self.kind}: {self.kills} kills, {self.finished} finished bit-identical "
            f"({self.resumed} of them after at least one kill), nothing torn, {self.seconds:.0f} s"
        )


class Torn(Exception):
    """A killed process left something that it should not."""


def start(body: Callable[[], None], log: Path) -> int:
    """A forked process that runs ``body``; its output goes to ``log``."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            body()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def ended(pid: int, seconds: float) -> int | None:
    """The exit code if the process ends by itself within so many seconds, else None."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return 0
        time.sleep(0.002)
    return None


def reap(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def files_of(folder: Path) -> dict[str, bytes]:
    """The files that must be equal, by name."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name not in VARYING
    }


def same(expected: dict[str, bytes], found: dict[str, bytes], what: str) -> None:
    """Refuse an end that is not bit by bit the uninterrupted one."""
    differing = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
    if differing:
        raise Torn(f"{what} ended differently after being killed: {', '.join(differing)}")


@contextmanager
def strictly() -> Iterator[None]:
    """Damage that is found while looking is an error here."""
    from fedlora_kit.experiments.atomic import DamageWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", DamageWarning)
        yield


def look_at_store(root: Path) -> None:
    """Every entry whole, every checkpoint whole, every description readable."""
    from fedlora_kit.experiments.checkpoints import CheckpointFolder
    from fedlora_kit.experiments.store import Store

    store = Store(root)
    with strictly():
        for entry in store.entries():
            if store.load(entry.key) is None:
                raise Torn(f"entry {entry.key} cannot be loaded")
        for one in store.unfinished():
            if one.status == "running":
                raise Torn(f"run {one.key} is still locked")
            CheckpointFolder(root / ".work" / one.key / "checkpoints").load_latest()
    if (root / ".damaged").exists():
        raise Torn("something was set aside as damaged")


def kill_processes(
    figures: Figures,
    kills: int,
    rng: random.Random,
    bodies: Iterator[tuple[Callable[[], None], float, Callable[[], None], Callable[[], None]]],
    log: Path,
) -> None:
    """Start, kill at a random moment, look, start again; on to the next body when one has ended.

    Each body comes with the seconds it takes uninterrupted, a look at what a killed one leaves, and the
    comparison at its end.
    """
    for body, seconds, look, compare in bodies:
        hit = 0
        while True:
            pid = start(body, log)
            over = None
            if figures.kills < kills:
                over = ended(pid, rng.uniform(0, seconds))
                if over is None:
                    os.kill(pid, signal.SIGKILL)
                    reap(pid)
                    figures.kills += 1
                    hit += 1
                    look()
                    continue
            elif reap(pid):
                raise Torn(f"a process failed: {log.read_text('utf-8', 'replace')[-2000:]}")
            break
        compare()
        figures.finished += 1
        figures.resumed += bool(hit)
        if figures.kills >= kills:
            return


def description(seed: int) -> dict[str, object]:
    """A run of about a second, with DP, a cohort, and heads that stay with their clients."""
    return {
        "model": {"backbone": "kit/text-tiny", "lora": {"rank": 2, "alpha": 4, "head": "personal"}},
        "data": {"task": "polarity", "train_limit": 120, "eval_limit": 40},
        "split": {"partitioner": "iid", "clients": 3},
        "method": {"name": "lora"},
        "local": {"lr": 0.1, "steps": 2, "batch_size": 8, "optimizer": "adamw"},
        "rounds": {"rounds": 12, "cohort": 2, "eval_every": 4},
        "privacy": {"epsilon": 8.0, "delta": 1e-3, "clip": 1.0},
        "seed": seed,
    }


def kill_runs(figures: Figures, kills: int, rng: random.Random, folder: Path) -> None:
    """Training runs, each killed again and again until it gets through."""
    # What every process would read and import anew is read here, so that the moments fall on the work itself.
    import torch

    from fedlora_kit.experiments.run import run
    from fedlora_kit.experiments.setup import build
    from fedlora_kit.experiments.spec import RunSpec
    from fedlora_kit.experiments.store import Store
    from fedlora_kit.training.noise_plan import noise_of_clients

    federation = build(RunSpec.parse(description(0)), torch.device("cpu"))
    steps = federation.rounds.rounds * federation.local.steps
    noise_of_clients(
        federation.privacy, [len(c) for c in federation.clients], federation.local.batch_size, steps
    )
    log = folder / "runs.log"

    def bodies() -> Iterator[tuple[Callable[[], None], float, Callable[[], None], Callable[[], None]]]:
        for seed in range(10**6):
            spec = RunSpec.parse(description(seed))
            whole, cut = Store(folder / f"whole-{seed}"), Store(folder / f"cut-{seed}")
            clock = time.monotonic()
            if reap(start(lambda s=spec, w=whole: run(s, device="cpu", store=w) and None, log)):
                raise Torn(f"the uninterrupted run failed: {log.read_text('utf-8', 'replace')[-2000:]}")
            seconds = time.monotonic() - clock

            def compare(spec: RunSpec = spec, whole: Store = whole, cut: Store = cut) -> None:
                look_at_store(cut.root)
                with strictly():
                    one, other = whole.load(spec.key()), cut.load(spec.key())
                if one is None or other is None:
                    raise Torn(f"run {spec.key()} cannot be loaded at its end")
                same(files_of(one.path), files_of(other.path), f"run {spec.key()}")
                left = [p.name for p in cut.root.iterdir() if p.name not in (spec.key(), ".locks", ".work")]
                if left or any((cut.root / ".work").iterdir()):
                    raise Torn(f"left over: {left or '.work'}")
                shutil.rmtree(whole.root)
                shutil.rmtree(cut.root)

            def body(spec: RunSpec = spec, cut: Store = cut) -> None:
                run(spec, device="cpu", store=cut)

            yield body, seconds, lambda cut=cut: look_at_store(cut.root), compare

    kill_processes(figures, kills, rng, bodies(), log)


def kill_store(figures: Figures, kills: int, rng: random.Random, folder: Path) -> None:
    """Checkpoints and entries written one after the other, as fast as the disk takes them."""
    import torch

    from fedlora_kit.experiments.store import Store

    def write(store: Store, key: str) -> None:
        with store.work(key, {"key": key}) as work:
            if work.entry is not None:
                return
            latest = work.checkpoints.load_latest()
            first, x = (
                (0, torch.ones(64)) if latest is None else (latest.round_index + 1, latest.tensors["x"])
            )
            history = [] if latest is None else latest.meta["history"]
            for index in range(first, 4):
                x = (x * 1.7 + index).sin()
                history.append({"round": index, "value": float(x[0])})
                work.checkpoints.save(index, {"x": x}, {"history": history})
            files = {"results.json": history[-1], "history.jsonl": history, "provenance.json": {}}
            work.finish({**files, "adapter/a.bin": x.numpy().tobytes()})

    keys = [f"{value:016x}" for value in range(40)]
    log = folder / "store.log"

    def every(store: Store) -> None:
        for key in keys:
            write(store, key)

    reference = Store(folder / "reference")
    clock = time.monotonic()
    if reap(start(lambda: every(reference), log)):
        raise Torn(f"the uninterrupted writer failed: {log.read_text('utf-8', 'replace')[-2000:]}")
    seconds = time.monotonic() - clock

    def bodies() -> Iterator[tuple[Callable[[], None], float, Callable[[], None], Callable[[], None]]]:
        for turn in range(10**6):
            store = Store(folder / f"store-{turn}")

            def compare(store: Store = store) -> None:
                look_at_store(store.root)
                same(files_of(reference.root), files_of(store.root), "the store")
                shutil.rmtree(store.root)

            # most starts are killed within what they have to write
            yield (
                lambda store=store: every(store),
                seconds,
                lambda store=store: look_at_store(store.root),
                compare,
            )

    kill_processes(figures, kills, rng, bodies(), log)


TABLE = """
import time
import pandas as pd
from fedlora_kit.reporting.outputs import ItemOutputs
outputs = ItemOutputs({item!r}, profile, output_dir)
outputs.table(pd.DataFrame({{"value": [{value}, 2.5]}}))
time.sleep(0.2)
outputs.table(pd.DataFrame({{"value": [{value}, 3.5]}}), "second")
"""


def family(pid: int) -> list[int]:
    """A process and all that it has started, by /proc."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = Path("/proc", name, "stat").read_text("utf-8", "replace")
            except OSError:
                continue
            parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(name))
    found, queue = [], [pid]
    while queue:
        found.append(queue.pop())
        queue += parents.get(found[-1], [])
    return found


def kill_batches(figures: Figures, kills: int, rng: random.Random, folder: Path) -> None:
    """Batches of two notebooks; the victim is any process of the batch."""
    import nbformat

    from fedlora_kit.batch.cache import unchanged
    from fedlora_kit.batch.order import Order
    from fedlora_kit.batch.pipeline import reproduce
    from fedlora_kit.batch.status import read_status
    from fedlora_kit.study.item import Item

    home, log = folder / "home", folder / "batches.log"
    items = [Item(one, "table", "", "", "") for one in ("p/one", "p/two")]
    parameters = 'profile: str = "smoke"  # size\noutput_dir: str = "figures"  # top of all outputs\n'
    for value, item in enumerate(items):
        node = nbformat.v4.new_notebook()
        node.cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
        node.cells.append(nbformat.v4.new_code_cell(TABLE.format(item=item.id, value=value)))
        path = home / "notebooks" / f"{item.id}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(node, path)
    os.environ["FEDLORA_HOME"] = str(home)
    out = home / "figures" / "smoke"

    def body() -> None:
        from fedlora_kit.batch.progress import PlainLines

        reproduce(Order(items, jobs=2), PlainLines(lambda line: print(line, flush=True)))

    def tables() -> dict[str, bytes]:
        return {k: v for k, v in files_of(out).items() if Path(k).suffix in (".csv", ".md")}

    def look() -> None:
        for item in items:
            status = read_status(out / item.id)
            if (out / item.id).exists() and status is None:
                raise Torn(f"{item.id} has outputs and no status")
            if (
                status is not None
                and status.status == "ok"
                and unchanged(out / item.id, status.cache_key) is None
            ):
                raise Torn(f"{item.id} is ok, and its files do not fit")
            if status is not None and status.status == "failed" and not status.error:
                raise Torn(f"{item.id} failed without a reason")

    clock = time.monotonic()
    if reap(start(body, log)):
        raise Torn(f"the uninterrupted batch failed: {log.read_text('utf-8', 'replace')[-2000:]}")
    seconds, expected = time.monotonic() - clock, tables()
    if len(expected) != 8:
        raise Torn(f"the uninterrupted batch wrote {sorted(expected)}")
    while figures.kills < kills:
        shutil.rmtree(home / "figures")
        hit = 0
        while True:
            pid = start(body, log)
            if figures.kills >= kills or rng.random() < 0.2:
                break  # let this one through
            if ended(pid, rng.uniform(0.1, 0.95 * seconds)) is not None:
                pid = 0
                break
            victim = rng.choice(family(pid))
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue
            reap(pid)  # a batch whose notebook or kernel was killed goes on to its end by itself
            figures.kills += 1
            hit += 1
            look()
        if pid and reap(pid):
            raise Torn(f"a batch failed: {log.read_text('utf-8', 'replace')[-2000:]}")
        look()
        left = {k: v for k, v in tables().items() if "/earlier/" not in k}
        statuses = {item.id: read_status(out / item.id) for item in items}
        if any(s is None or s.status != "ok" for s in statuses.values()):
            start_again = start(body, log)  # the last start was the one whose notebook was killed
            reap(start_again)
            left = tables()
        same(expected, left, "the batch")
        if list((out / ".staging").glob("*")):
            raise Torn("scratch folders are left")
        figures.finished += 1
        figures.resumed += bool(hit)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50, help="kills of each kind (50)")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of " + ", ".join(KINDS))
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    chosen = parser.parse_args(arguments)
    os.environ.setdefault("TQDM_DISABLE", "1")
    import torch

    torch.set_num_threads(1)
    kinds = {"runs": kill_runs, "store": kill_store, "batches": kill_batches}
    found = []
    with tempfile.TemporaryDirectory(prefix="fedlora-kill-", ignore_cleanup_errors=True) as folder:
        for name in chosen.kinds.split(","):
            if name not in kinds:
                parser.error(f"unknown kind {name!r}: choose of {', '.join(KINDS)}")
            figures = Figures(name)
            clock = time.monotonic()
            try:
                kinds[name](figures, chosen.kills, random.Random(f"{chosen.seed} {name}"), Path(folder))
            except Torn as torn:
                print(f"{name}: after {figures.kills} kills: {torn}", file=sys.stderr)
                return 1
            figures.seconds = round(time.monotonic() - clock, 1)
            found.append(figures)
            if not chosen.json:
                print(figures.line(), flush=True)
    if chosen.json:
        print(json.dumps([vars(f) for f in found]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
