"""Is this GPU right, and how fast is it? The kit's GPU path, checked in minutes and without a network.

    python tools/gpu_acceptance.py --out acceptance --minutes 10

Correctness first: the device against the CPU, DP against one backward pass an example, bf16 and TF32
against fp32. Then the papers' sizes, with random weights and examples of the published lengths; then killed
runs, and how the work is done. Each check stands alone: one that fails is recorded with its error, and the
next one runs. What does not fit into the time is listed as not run. ``acceptance.json`` and
``acceptance.md`` in the folder are complete after each check.

The exit status is 0 if no check failed. ``--tiny`` tries the script itself, also on a CPU: its figures mean
nothing.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from acceptance import machine, processes, same, sizes, ways
from acceptance.frame import Bench, Check, run_all

from fedlora_kit.devices import resolve_device

NO_GPU = "it asks about a GPU"
SLOW = "it takes longer than the tiny form has"

#: by worth: a run that is broken off has answered the most important ones
CHECKS = (
    Check("environment", "what is here", 5, machine.environment),
    Check("ceilings", "the largest rates", 15, machine.ceilings),
    Check("naming", "the record names the device; what needs none leaves CUDA alone", 40, processes.naming),
    Check(
        "device = CPU", "adapters, losses, cohorts and Fisher scores are the CPU's", 60, same.cpu_is_device
    ),
    Check("DP", "rows = hooks = one backward pass an example; norms; noise", 15, same.private),
    Check("rounding", "tf32 and bf16 are near fp32", 15, same.rounded),
    Check("text", "RoBERTa-large, a step", 60, sizes.text),
    Check("image", "ViT-B/16, a round", 45, sizes.image),
    Check("causal", "LLaMA-7B, steps and answers", 60, sizes.causal),
    Check("resume", "a killed run ends with the same bits", 120, processes.resumed),
    Check("determinism", "its price", 20, ways.determinism, on_cpu="a CPU is deterministic as it is"),
    Check("attention", "which kernels", 20, ways.attention),
    Check("plan", "planned steps against trained ones", 40, ways.plans, in_tiny=SLOW),
    Check("waits", "the host's waits for the GPU", 15, ways.waits, on_cpu=NO_GPU),
    Check("side by side", "1, 2, 4 and 8 processes", 100, processes.side_by_side),
    Check("stacks", "clients in one pass", 20, ways.stacks),
    Check("compiled", "torch.compile", 60, ways.compiled, in_tiny=SLOW),
    Check("4 bits", "bitsandbytes", 20, ways.four_bits, on_cpu="4-bit weights need a GPU"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks; 0 if none failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for acceptance.json and acceptance.md"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="a check is begun only if it should fit")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try the script")
    parser.add_argument("--only", nargs="*", help="names of checks")
    given = parser.parse_args(arguments)
    known = [check.name for check in CHECKS]
    unknown = sorted(set(given.only or []) - set(known))
    if unknown:
        parser.error(f"no check is called {', '.join(unknown)}; there are {', '.join(known)}")
    import transformers

    transformers.utils.logging.set_verbosity_error()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    device = resolve_device(given.device)
    if device.type == "cpu":
        torch.set_num_threads(1)  # processes are forked, which threads do not survive
    given.out.mkdir(parents=True, exist_ok=True)
    checks = [check for check in CHECKS if not given.only or check.name in given.only]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = run_all(checks, Bench(device, given.tiny, Path(folder)), given.minutes, given.out)
    for result in results:
        print(f"{result.status:8} {result.name:14} {result.seconds:6.1f} s  {result.reason}")
    return 1 if any(result.status == "failed" for result in results) else 0


if __name__ == "__main__":
    raise SystemExit(main())
