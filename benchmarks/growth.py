"""How time and memory of a run grow with its clients.

    python benchmarks/growth.py [--repeats 5]

* Time of a round with 4, 8 and 16 participating clients out of 16, and with 4 out of 16, 100 and 1,000: it
  should grow in proportion to the first and not at all with the second (one thread, CPU time, all in turn).
* Peak memory of a run of 1,000 clients against one of 10, same backbone, data and cohort, each in a process
  of its own; without and with personal heads. The bar is 1.1.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from federated_overhead import model, text
from pairs import in_turn, line, options, ratio, store

from fedlora_kit.methods import method
from fedlora_kit.models.lora import LoraSettings, attach_lora
from fedlora_kit.randomness import Streams
from fedlora_kit.training.federation import Federation, run_federation
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


def peak(clients: int, head: str) -> int:
    """Peak resident bytes of a process that runs 100 rounds of 10 clients."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import resource, torch; torch.set_num_threads(1)\n"
        f"import growth; growth.rounds({clients}, 10, number=100, head={head!r})\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return 1024 * int(done.stdout.split()[-1])


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
        few, many = peak(10, head), peak(1000, head)
        print(f"  peak memory, head {head}: 10 clients {few / 2**20:.0f} MiB, 1,000 {many / few:.3f} of it")
        rows.append({"head": head, "bytes_10": few, "bytes_1000": many, "ratio": many / few, "bar": 1.1})
    store("growth", rows, given.out)


if __name__ == "__main__":
    main()
