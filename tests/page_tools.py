"""A small report with everything in it, for the tests of the page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import pandas as pd

mpl.use("Agg")
from matplotlib import pyplot as plt

from fedlora_kit.batch.status import Status, digests, write_status
from fedlora_kit.experiments.store import Store
from fedlora_kit.reporting.comparison import compare
from fedlora_kit.reporting.outputs import ItemOutputs, item_folder
from fedlora_kit.reporting.page import write_page
from fedlora_kit.study.claims import Claim, judge_all, mean_difference, to_json
from fedlora_kit.study.grid import mean_std_table


@dataclass(frozen=True)
class Item:
    id: str
    notebook: str | None = "x.ipynb"
    title: str = "A title"
    kind: str = "table"
    foundation: str = "SEEN"

    @property
    def paper(self) -> str:
        return self.id.rpartition("/")[0]

    @property
    def name(self) -> str:
        return self.id.rpartition("/")[2]


ITEMS = [
    Item("ffa-lora/table1", title="The first table"),
    Item("ffa-lora/table2", title="Never run"),
    Item("fed-hello/curves", title="One that failed", kind="figure"),
    Item("fed-hello/table2", title="One that was damaged"),
    Item("fedlora-optimizer/global", title="Nothing but text"),
]
CLAIM = Claim(
    "worse",
    "Severe splits are worse.",
    "Table 1",
    "SEEN",
    lambda frame: mean_difference(
        frame,
        "accuracy",
        better={"method": "lora", "split": "iid"},
        worse={"method": "lora", "split": "severe"},
    ),
)
METHODS, SPLITS, SEEDS = ("lora", "ffa-lora"), ("iid", "severe"), (0, 1, 2)


def key(method: str, split: str, seed: int) -> str:
    """The key of a run of the report."""
    return f"{METHODS.index(method)}{SPLITS.index(split)}{seed}".ljust(16, "a")


def accuracy(method: str, split: str, seed: int) -> float:
    """What the run scored in the end, %."""
    return 80.0 - 10 * SPLITS.index(split) + 3.25 * METHODS.index(method) + 1.7 * seed


def results() -> pd.DataFrame:
    rows = [(s, m, seed) for s in SPLITS for m in METHODS for seed in SEEDS]
    return pd.DataFrame(
        {
            "split": split,
            "method": method,
            "task": "sst2",
            "seed": seed,
            "key": key(method, split, seed),
            "accuracy": accuracy(method, split, seed),
            "loss": 1 - accuracy(method, split, seed) / 130,
        }
        for split, method, seed in rows
    )


def fill_store(store: Store) -> None:
    """The runs, all but one, which is missing."""
    for row in results().to_dict("records"):
        final = row["accuracy"] / 100
        history = [
            {
                "round": i,
                "train_loss": 1 / (i + 1),
                "eval": {"test": {"accuracy": final * (i + 1) / 4, "examples": 9}},
            }
            for i in range(4)
        ]
        if row["key"] == key("ffa-lora", "severe", 2):
            continue
        with store.work(row["key"], {"method": {"name": row["method"]}, "seed": row["seed"]}) as work:
            work.finish(
                {
                    "history.jsonl": history,
                    "results.json": {"scores": {"test": {"final": final}}},
                    "provenance.json": {"versions": {"torch": "2.13"}, "wall_seconds": 1.5, "git": None},
                    "privacy.json": {"epsilon": 5.99, "sigma": 0.9},
                }
            )


def finish(item: str, status: str = "ok", error: str | None = None) -> Path:
    folder = item_folder(item, "smoke")
    folder.mkdir(parents=True, exist_ok=True)
    finished = "2026-01-31T12:34:56+00:00"
    done = Status(item, status, "smoke", error, 90.0, {"seeds": 3}, "", {"torch": "2.13"}, finished)
    write_status(folder, Status(**{**vars(done), "files": digests(folder)}))
    return folder


def claims(folder: Path, *rows: tuple[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    keys = ("source", "foundation")
    records = [
        {"id": f"c{i}", **dict.fromkeys(keys, "s"), "text": t, "status": s, "reason": "because"}
        for i, (t, s) in enumerate(rows)
    ]
    (folder / "claims.json").write_text(json.dumps(records))


def fill() -> None:
    """The folders of `ITEMS` and their runs, under FEDLORA_HOME."""
    fill_store(Store())
    frame = results()
    outputs = ItemOutputs("ffa-lora/table1", "smoke")
    outputs.table(frame, "results")
    outputs.table(mean_std_table(frame, rows=["method"], column="split"))
    wide = pd.DataFrame({f"a rather long heading number {i}": ["x" * 40] for i in range(12)})
    outputs.table(wide, "wide")
    reported = pd.DataFrame(
        [("method=lora|split=iid", "accuracy %", 85.0, 1.1, "SEEN", "src")],
        columns=["cell", "metric", "value", "std", "label", "source"],
    )
    outputs.comparison(
        compare(frame, reported, ["method", "split"], "accuracy %", "accuracy", comparable=False)
    )
    outputs.privacy(pd.DataFrame({"method": ["lora"], "epsilon": [5.991], "sigma": [0.990234]}))
    outputs.note(["Smaller model, and_a_very_long_word_that_" + "cannot_be_broken_" * 12])
    fig, ax = plt.subplots()
    for method, rows in frame.groupby("method", sort=False):
        means = rows.groupby("split", sort=False)["accuracy"].mean()
        ax.errorbar(means.index, means, yerr=1.0, capsize=2, label=method)
    ax.axhline(84.95)
    outputs.figure(fig)
    claims(outputs.folder, ("Spread is lower.", "reproduced"), ("Loss is smaller.", "not reproduced"))
    judged = judge_all([CLAIM], frame)
    records = [*json.loads((outputs.folder / "claims.json").read_text()), *json.loads(to_json(judged))]
    (outputs.folder / "claims.json").write_text(json.dumps(records))
    finish("ffa-lora/table1")
    finish(
        "fed-hello/curves", "failed", "NonFinite: loss became NaN in round 3, " + "at/some/long/path/" * 20
    )
    ItemOutputs("fed-hello/table2", "smoke").table(pd.DataFrame({"a": [1]}))
    (finish("fed-hello/table2") / "table.csv").write_text("a\n999\n")
    ItemOutputs("fedlora-optimizer/global", "smoke").note(["Only a remark about zebras."])
    finish("fedlora-optimizer/global")


def filled_page() -> Path:
    fill()
    return write_page("figures", "smoke", ITEMS)
