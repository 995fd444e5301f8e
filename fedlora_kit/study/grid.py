"""A table as a grid of runs: cells, the choice of hyper-parameters, and the frame of results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from fedlora_kit.data.tasks import get_task
from fedlora_kit.errors import BadValue
from fedlora_kit.numerals import fixed, with_spread

if TYPE_CHECKING:
    from fedlora_kit.experiments.spec import RunSpec
    from fedlora_kit.running.many import Finished


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        coords: where it stands in the table, as text ({"eps": "6", "method": "lora", ...}).
        tuned: the hyper-parameters that are chosen ({"lr": 0.1, "clip": 2.0}).
        seed: the run's seed.
        spec: the run.
    """

    coords: Mapping[str, str]
    tuned: Mapping[str, float]
    seed: int
    spec: RunSpec


def run_cells(cells: Sequence[Cell], **options: Any) -> list[tuple[Cell, Finished]]:
    """Every cell's run, from the store or trained now (see `running.many.run_all`)."""
    from fedlora_kit.running.many import run_all

    return list(zip(cells, run_all([cell.spec for cell in cells], **options), strict=True))


def grid_frame(done: Sequence[tuple[Cell, Finished]], scored: str = "holdout") -> pd.DataFrame:
    """All of the grid: one row a run, with its score on the part that choices are made on.

    Columns: the coordinates, the tuned values, ``seed``, ``key``, ``score`` (accuracy in %; NaN for a run
    that failed).
    """
    rows = []
    for cell, run in done:
        score = math.nan if run.entry is None else 100 * run.entry.results["scores"][scored]["final"]
        rows.append({**cell.coords, **cell.tuned, "seed": cell.seed, "key": run.key, "score": score})
    return pd.DataFrame(rows)


def choose(grid: pd.DataFrame, by: Sequence[str], tuned: Sequence[str]) -> pd.DataFrame:
    """The best of the grid for every cell of the table.

    The rule: the highest mean score over the tuning seeds, on a part of the training data that is neither
    trained on nor reported; a setting with a failed run cannot win; ties go to the smaller values of
    ``tuned``, in their order. Where every setting failed, the smallest values stand, with score NaN: the
    table then shows what became of the cell at them.

    Args:
        grid: from `grid_frame`.
        by: coordinates of the table's cells.
        tuned: names of the hyper-parameters.

    Returns:
        One row a cell: ``by``, ``tuned``, ``score``.
    """
    means = grid.groupby([*by, *tuned], sort=False, dropna=False)["score"].agg(lambda s: s.mean(skipna=False))
    rows = []
    for _, scores in means.reset_index().groupby(list(by), sort=False, dropna=False):
        best = scores[scores["score"] == scores["score"].max()]
        best = scores if best.empty else best  # every setting failed
        rows.append(best.sort_values(list(tuned)).iloc[0])
    return pd.DataFrame(rows).reset_index(drop=True)


def grid_matrix(grid: pd.DataFrame, chosen: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """All of the grid as a text table: one row a cell, one column a setting, the chosen one marked by ✓.

    Args:
        grid: from `grid_frame`; chosen: from `choose`; both with the tuned values lr and clip.
        by: coordinates of the table's cells.

    Returns:
        ``by``, then one column a setting ("lr 0.1", "lr 0.1, C 2") with the mean score over the tuning seeds;
        "diverged" where a run failed, empty where a method's grid does not hold the setting.
    """
    ordered = grid.sort_values(["clip", "lr"], na_position="first", kind="stable")
    columns = list(dict.fromkeys(map(_setting_name, ordered["lr"], ordered["clip"])))
    best = {
        (*(row[name] for name in by), _setting_name(row["lr"], row["clip"]))
        for row in chosen.to_dict("records")
    }
    rows: list[dict[str, str]] = []
    for place, runs in grid.groupby(list(by), sort=False):
        cells = dict.fromkeys(columns, "")
        named = runs.assign(setting=list(map(_setting_name, runs["lr"], runs["clip"])))
        for name, scores in named.groupby("setting", sort=False)["score"]:
            text = "diverged" if scores.isna().any() else fixed(scores.mean(), 1)
            cells[str(name)] = f"{text} ✓" if (*place, name) in best else text
        rows.append({**dict(zip(by, map(str, place), strict=True)), **cells})
    return pd.DataFrame(rows)


def _setting_name(lr: float, clip: float) -> str:
    return f"lr {lr:g}" + ("" if math.isnan(clip) else f", C {clip:g}")


_MEASURED = (
    "accuracy",
    "accuracy_last10",
    "accuracy_best",
    "loss",
    "examples",
    "trained_parameters",
    "sent_parameters",
    "sent_bytes",
    "sigma",
    "epsilon",
)


def _measured(task: str) -> list[str]:
    """Columns of a failed run: those of its task, so that a table of nothing but failures has them too."""
    kind = get_task(task)
    if kind.modality != "causal":
        more = "macro_f1"
    elif kind.metric != "final_number":
        more = "rouge_l"
    else:
        return list(_MEASURED)
    return [*_MEASURED, more, f"{more}_last10", f"{more}_best"]


def results_frame(done: Sequence[tuple[Cell, Finished]]) -> pd.DataFrame:
    """The results: one row a run and scored part of its task.

    Returns:
        Coordinates (``task`` names the part: the task itself, or "mnli-matched" where it scores several), the
        tuned values, ``seed``, ``key``, and
        accuracy: % on the scored part after the last round; NaN if the run failed.
        accuracy_last10, accuracy_best: % (see `experiments.run.summarise`; best is optimistic).
        loss: on the scored part after the last round, nats.
        further metrics (macro_f1, rouge_l, ...) as accuracy: three columns each, %, where a run has them.
        local_accuracy, local_loss, local_...: mean over the clients, each by its own adapter on its own
        held-out
            examples, where a run has them (`DataSpec.client_holdout`); in % but for the loss; "_last10" and
            "_best" as above.
        trained_parameters, sent_parameters, sent_bytes: at one client in one round.
        sigma, epsilon: noise multiplier and largest spent epsilon (NaN without DP).

    Raises:
        BadValue: a coordinate has the name of a measured column.
    """
    rows: list[dict[str, Any]] = []
    for cell, run in done:
        for column, part in get_task(cell.spec.data.task).parts.items():
            row: dict[str, Any] = {
                **cell.coords,
                "task": column,
                **cell.tuned,
                "seed": cell.seed,
                "key": run.key,
            }
            if run.entry is None:
                rows.append({**row, **dict.fromkeys(_measured(cell.spec.data.task), math.nan)})
                continue
            summary, privacy = run.entry.results, run.entry.privacy or {}
            score = summary["scores"][part]
            measured = {
                "accuracy": 100 * score["final"],
                "accuracy_last10": 100 * score["last10"],
                "accuracy_best": 100 * score["best"],
                "loss": score["loss"],
                **_further(score),
                **_local(summary),
                "examples": score["examples"],
                "trained_parameters": summary["trained_parameters"],
                "sent_parameters": summary["sent_parameters"],
                "sent_bytes": summary["sent_bytes"],
                "sigma": privacy.get("sigma", math.nan),
                "epsilon": privacy.get("epsilon", math.nan),
            }
            if clash := sorted(row.keys() & measured.keys()):
                raise BadValue(
                    f"a coordinate or tuned setting is called {clash[0]!r}, as a measured column is",
                    "name it otherwise",
                )
            rows.append({**row, **measured})
    return pd.DataFrame(rows)


def _further(score: Mapping[str, Any]) -> dict[str, float]:
    """The metrics beside accuracy, in %."""
    found = {}
    for name, values in score.items():
        if isinstance(values, Mapping):
            found[name] = 100 * values["final"]
            found |= {f"{name}_{when}": 100 * values[when] for when in ("last10", "best")}
    return found


def _local(summary: Mapping[str, Any]) -> dict[str, float]:
    """The mean over clients of every local metric."""
    found = {}
    for name, values in summary.get("local", {}).items():
        if name == "examples":
            continue
        unit = 1 if name == "loss" else 100
        found[f"local_{name}"] = unit * values["final"]
        found |= {f"local_{name}_{when}": unit * values[when] for when in ("last10", "best")}
    return found


def mean_std_table(
    results: pd.DataFrame, rows: Sequence[str], column: str, value: str = "accuracy", digits: int = 2
) -> pd.DataFrame:
    """Text table "mean ± std" over seeds (std with n - 1), one row a combination of ``rows``.

    A cell with failed runs says how many are left out.
    """

    def text(values: pd.Series) -> str:
        good = values.dropna()
        failed = len(values) - len(good)
        note = f" ({failed} diverged)" if failed else ""
        if good.empty:
            return f"diverged{note}"
        return with_spread(good.mean(), good.std(ddof=1), digits) + note

    ordered = results.copy()
    for name in (*rows, column):  # keep the order of appearance, which is the paper's
        ordered[name] = pd.Categorical(results[name], categories=list(dict.fromkeys(results[name])))
    table = ordered.groupby([*rows, column], observed=True)[value].agg(text).unstack(column)
    table.columns = pd.Index([str(name) for name in table.columns])
    return table.reset_index()


def privacy_frame(done: Sequence[tuple[Cell, Finished]], by: Sequence[str]) -> pd.DataFrame:
    """The privacy ledger of a table: one row a cell under DP, the largest epsilon over clients and seeds.

    Columns: ``by``, target_epsilon, epsilon (spent, largest), delta, sigma, clip, q (largest sampling rate),
    T (steps a client), accountant, sampling.
    """
    rows = []
    for cell, run in done:
        book = run.entry.privacy if run.entry is not None else None
        if book is None:
            continue
        rows.append(
            {
                **{name: cell.coords[name] for name in by},
                "target_epsilon": book["target_epsilon"],
                "epsilon": book["epsilon"],
                "delta": book["delta"],
                "sigma": book["sigma"],
                "clip": book["clip"],
                "q": book["sample_rate"],
                "T": book["steps"],
                "accountant": book["accountant"],
                "sampling": book["sampling"],
            }
        )
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    return frame.groupby(list(by), sort=False, as_index=False).max()
