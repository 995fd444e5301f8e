"""How time and memory of a run grow with its clients.

    python benchmarks/growth.py [--repeats 5]

* Time of a round with 4, 8 and 16 participating clients out of 16, and with 4 out of 16, 100 and 1,000: it
  should grow in proportion to the first and not at all with the second (one thread, CPU time, all in turn).
* Peak memory of a run of 1,000 clients against one of 10, same backbone, data and cohort, each in a process
  of its own; without and with personal heads; and a run of FedSA-LoRA, whose clients keep their B, from its
  description to its entry in a store, with a checkpoint every round, also with all states in memory
  (`training.client_states` without its bound). The bar is 1.1.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from federated_overhead import model, text
from pairs import in_turn, line, options, ratio, store

from fedlora_kit.experiments.run import run
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.methods import method
from fedlora_kit.models.lora import LoraSettings, attach_lora
from fedlora_kit.randomness import Streams
from fedlora_kit.training import client_states
from fedlora_kit.training.federation import Federation
from fedlora_kit.training.rounds import run_federation
from fedlora_kit.training.settings import FederationSettings, LocalSettings

EXAMPLES, WIDTH, LAYERS = 8000, 96, 4


def rounds(clients: int, cohort: int, number: int = 1, head: str = "frozen") -> None:
    """A run of ``number`` rounds on the same examples, dealt out to ``clients``."""
    net = model(WIDTH, LAYERS)
    if head != "frozen":
        net = attach_lora(net.unload(), LoraSettings(head=head), seed=1)  # type: ignore[operator, arg-type]
    whole = text(EXAMPLES, seed=0)
    parts = np.array_split(np.arange(EXAMPLES), clients)
    fed = Federation(
        model=net,
        method=method("lora"),
        clients=[whole.subset(part) for part in parts],
        evals={},
        rounds=FederationSettings(rounds=number, cohort=cohort, eval_every=0),
        local=LocalSettings(lr=1e-3, steps=2, batch_size=8),
        streams=Streams(0),
        head=head,  # type: ignore[arg-type]
    )
    run_federation(fed)


def personalised(clients: int, number: int, bound: int = client_states.MEMORY) -> None:
    """A whole run of FedSA-LoRA, 10 clients a round; prints how many have trained, and MiB of their B."""
    client_states.MEMORY = bound
    description = {
        "model": {"backbone": "kit/text-tiny", "lora": {"rank": 64, "alpha": 64}},
        "data": {"task": "polarity", "eval_limit": 8},
        "split": {"partitioner": "iid", "clients": clients},
        "method": {"name": "fedsa-lora"},
        "local": {"lr": 0.01, "steps": 1, "batch_size": 2},
        "rounds": {"rounds": number, "cohort": 10, "eval_every": number},
    }
    with tempfile.TemporaryDirectory() as folder:
        entry = run(RunSpec.parse(description), device="cpu", store=Store(Path(folder)))
        own = [path.stat().st_size for path in (entry.path / "personal").iterdir()]
    print(f"{len(own)} {sum(own) / 2**20:.0f}")


def peak(program: str) -> tuple[int, list[str]]:
    """Peak resident bytes of a process that runs a function of this file, and the words that it printed."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import torch; torch.set_num_threads(1)\n"
        f"import growth; growth.{program}\n"
        # not getrusage: that starts at the peak of the parent process
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *printed, kibibytes = done.stdout.split()
    return 1024 * int(kibibytes), printed


def main() -> None:
    """Print the figures and store them."""
    given = options(__doc__, 5)
    cases = {f"{c} of {n}": (n, c) for n, c in ((16, 4), (16, 8), (16, 16), (100, 4), (1000, 4))}
    prepared: dict[str, object] = {}

    def program(n: int, c: int) -> None:
        run_federation(prepared[f"{c} of {n}"])  # type: ignore[arg-type]

    whole = text(EXAMPLES, seed=0)
    net = model(WIDTH, LAYERS)
    for name, (n, c) in cases.items():
        # the same 500 examples a client, so that only the number of clients differs
        parts = [np.arange(500) + (k * 7) % (EXAMPLES - 500) for k in range(n)]
        held = [whole.subset(p) for p in parts[:16]]
        prepared[name] = Federation(
            model=net,
            method=method("lora"),
            clients=[held[k % 16] for k in range(n)],
            evals={},
            rounds=FederationSettings(rounds=2, cohort=c, eval_every=0),
            local=LocalSettings(lr=1e-3, steps=2, batch_size=8),
            streams=Streams(0),
        )
    seconds = in_turn({n: (lambda a=a: program(*a)) for n, a in cases.items()}, given.repeats)
    rows: list[dict[str, object]] = []
    for over, under, expected in (
        ("8 of 16", "4 of 16", "2 (proportional)"),
        ("16 of 16", "4 of 16", "4 (proportional)"),
        ("4 of 100", "4 of 16", "1"),
        ("4 of 1000", "4 of 16", "1"),
    ):
        found = ratio(seconds[over], seconds[under])
        line(f"a round of {over} / {under}", found, expected)
        rows.append({"over": over, "under": under, "expected": expected, **found})
    for head in ("frozen", "personal"):
        few, many = (peak(f"rounds({n}, 10, number=100, head={head!r})")[0] for n in (10, 1000))
        print(f"  peak memory, head {head}: 10 clients {few / 2**20:.0f} MiB, 1,000 {many / few:.3f} of it")
        rows.append({"head": head, "bytes_10": few, "bytes_1000": many, "ratio": many / few, "bar": 1.1})
    few, _ = peak("personalised(10, 100)")
    for name, bound in (("bounded", ""), ("all in memory", ", 2**60")):
        many, (trained, size) = peak(f"personalised(1000, 100{bound})")
        print(
            f"  peak memory, FedSA-LoRA, client states {name}: 10 clients {few / 2**20:.0f} MiB, 1,000 "
            f"({trained} have trained, B of {size} MiB) {many / few:.3f} of it",
            flush=True,
        )
        rows.append({"states": name, "bytes_10": few, "bytes_1000": many, "ratio": many / few, "bar": 1.1})
    store("growth", rows, given.out)


if __name__ == "__main__":
    main()
