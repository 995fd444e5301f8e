"""FedLoRA-Optimizer's tables as frames: scores of global and of clients' own adapters, and what they took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from fedlora_kit.papers.fedlora_optimizer.tables import METRICS, SPLITS, WORDS, has_global
from fedlora_kit.study.grid import Cell, mean_std_table, results_frame

if TYPE_CHECKING:
    from fedlora_kit.running.many import Finished


def frame(done: Sequence[tuple[Cell, Finished]]) -> pd.DataFrame:
    """The results: one row a run, as `study.grid.results_frame` gives them, with these changes.

    The scores of the global adapter are NaN for a method that has none (its scored part is the mean over the
    clients' own adapters, which is something else). Further columns:

    global: whether there is a global adapter.
    minus_loss, local_minus_loss: larger is better.
    steps, examples_seen: optimiser steps of all clients and the server, and the examples they saw (with
        repetition).
    server_steps, server_seen: those of them at the server.
    """
    results = results_frame(done)
    results["global"] = [has_global(method) for method in results["method"]]
    test = [c for c in results.columns if c.startswith(("accuracy", "rouge_l")) or c == "loss"]
    results.loc[~results["global"], test] = math.nan
    for name in [n for n in ("loss", "local_loss") if n in results]:
        results[name.replace("loss", "minus_loss")] = -results[name]
    return pd.concat([results, pd.DataFrame([_effort(run) for _, run in done])], axis=1)


def _effort(run: Finished) -> dict[str, float]:
    """What a run took, from its history."""
    found = dict.fromkeys(("steps", "examples_seen", "server_steps", "server_seen"), 0.0)
    if run.entry is None:
        return dict.fromkeys(found, math.nan)
    local, sizes = run.spec.local, run.entry.results["client_sizes"]
    for record in run.entry.history:
        found["steps"] += record["training_clients"] * local.steps
        found["examples_seen"] += record["examples"]
        for stage in record.get("stages", []):
            found["steps"] += stage["steps"]
            if stage["clients"]:
                each = stage["steps"] // len(stage["clients"])
                seen = sum(each * min(local.batch_size, sizes[k]) for k in stage["clients"])
            else:
                seen = stage["steps"] * min(local.batch_size, run.spec.data.server_examples)
                found["server_steps"] += stage["steps"]
                found["server_seen"] += seen
            found["examples_seen"] += seen
    return found


def place(task: str, split: str, model: str) -> str:
    """A column of the tables, in short."""
    held = "" if split == "cat_1" else f", {SPLITS[split]} categories a client"
    return f"{task}{held}: {model.rsplit('/', maxsplit=1)[-1]}"


def score_table(results: pd.DataFrame, metric: str, *, local: bool) -> pd.DataFrame:
    """Text table "mean ± std" over seeds: one row a method, one column a data set and model.

    Args:
        results: from `frame`.
        metric: of `METRICS`.
        local: by each client's own adapter, or by the global one ("—" where a method has none).
    """
    column, digits = METRICS[metric]
    value = f"local_{column}" if local else column
    rows = results if local else results[results["global"]]
    at = [place(*where) for where in rows[["task", "split", "model"]].itertuples(index=False, name=None)]
    if rows.empty:
        made = pd.DataFrame({"method": []})
    else:
        made = mean_std_table(rows.assign(at=at), rows=["method"], column="at", value=value, digits=digits)
    methods = list(dict.fromkeys(results["method"]))
    return made.set_index("method").reindex(methods, fill_value="—").reset_index()


def effort_table(results: pd.DataFrame) -> pd.DataFrame:
    """What each method takes and sees in a run (mean over data sets, models and seeds), one row a method.

    Columns: method, in words, steps, examples seen, of them steps and examples at the server.
    """
    columns = {
        "steps": "optimiser steps",
        "examples_seen": "examples seen",
        "server_steps": "of the steps: at the server",
        "server_seen": "of the examples: at the server",
    }
    found = results.groupby("method", sort=False)[list(columns)].mean().reset_index().rename(columns=columns)
    found.insert(1, "in words", [WORDS.get(method, method) for method in found["method"]])
    return found
