# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Who holds what: heterogeneity, seen and measured
#
# Ten minutes of reading, about half a minute of running, no network and no GPU.
#
# "Non-IID" is no property that data have or lack. There are several ways of being unlike, each with a dial, and a
# paper's number means little until one knows which dial stood where. This lesson shows the ways as pictures, gives one
# of them a number, and checks whether the number says anything about training.

# %% tags=["parameters"]
profile: str = "smoke"  # smoke | laptop | small | paper; this lesson is the same in all of them
seeds: int = 3  # number of seeds, from 0 (at least 2 for the claims)
device: str = "auto"  # auto | cpu | cuda
output_dir: str = "figures"  # where table, figure and claims go, relative to the repository

# %%
from dataclasses import dataclass
from typing import ClassVar

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from fedlora_kit import notebook as kit
from fedlora_kit.data import get_task, load_task
from fedlora_kit.looks import FAINT, GREY, SERIES, SINGLE, Look
from fedlora_kit.papers.lessons import partitions as lesson
from fedlora_kit.papers.lessons.small import OWN, last_round, rounds_frame
from fedlora_kit.partition import (
    Partitioner,
    label_counts,
    partition_figure,
    partitioner,
    register,
)
from fedlora_kit.reporting.style import mean_band

out = kit.begin("lessons/partitions", profile, output_dir)

# %% [markdown]
# ## 1. A partitioner turns labels into parts
#
# Our data are 697 images of digits, and all that a partitioner is told are their labels: one array of 697 numbers from
# 0 to 9. What it gives back is one array of example numbers a client. Settings and seed fix the split for good.

# %%
labels = load_task(get_task("digits")).train.labels  # (697,)
parts = partitioner("iid", num_clients=10, seed=0).split(labels)
print("client 0 holds", len(parts[0]), "examples; the first are numbers", parts[0][:6].tolist())
print("their labels:", labels[parts[0][:6]].tolist())

# %%
counts = label_counts(parts, labels)  # (clients, classes) = (10, 10)
partition_figure(counts, title="IID: every client draws from the same pile")

# %% [markdown]
# The area of a circle is the number of examples. Even here the circles differ: 70 examples over 10 labels are 7 a label,
# give or take the luck of the draw. Keep that in mind: **some unlikeness is nothing but chance**, and the more of it the
# fewer examples a client holds.
#
# ## 2. Ways of being unlike
#
# The kit's partitioners, and what each was made for:

# %%
pd.set_option("display.max_colwidth", None)
lesson.what_they_do()

# %%
clients = 10
shown = {
    "iid": {"partitioner": "iid"},
    "dirichlet, alpha = 1": {"partitioner": "dirichlet", "settings": {"alpha": 1.0}},
    "dirichlet, alpha = 0.1": {"partitioner": "dirichlet", "settings": {"alpha": 0.1}},
    "pathological, 2 classes": {"partitioner": "pathological", "settings": {"classes_per_client": 2}},
    "by_group, 2 shards": {"partitioner": "by_group", "settings": {"shards_per_client": 2}},
    "quantity_skew, power law": {"partitioner": "quantity_skew", "settings": {"law": "power"}},
}
tables = {
    name: lesson.counts_of({**split, "clients": clients}, labels, seed=0) for name, split in shown.items()
}
out.figure(
    lesson.figure(tables),
    caption="Six splits of 697 digits over ten clients: examples of each label at each client, and the mean label distance.",
)

# %% [markdown]
# * **Dirichlet(α)** deals out each class by a random vector of shares. α is the dial: large α gives nearly equal
#   shares, small α gives a class to one or two clients. Sizes differ as well.
# * **Pathological** (Fed-HeLLo's splits): every client holds exactly so many classes.
# * **Shards** (`by_group`, FedIT's split): sort by label, cut into equal pieces, give each client two.
# * **Quantity skew**: labels alike, sizes not. Its labels look like IID, and the trouble is elsewhere.
#
# ## 3. A number for it
#
# Let $p_k$ be the label shares of client k (10 numbers that add up to 1) and $p$ those of all examples. Their **total
# variation distance** is
#
# $$ d_k = \tfrac12 \sum_c |p_k(c) - p(c)| \;\in [0, 1], $$
#
# the share of its examples that the client would have to exchange to look like everybody. The number in the headings
# above is its mean over the clients, weighted by their sizes. A client that holds 2 of 10 equal classes has $d_k = 0.8$.

# %%
by_client = pd.DataFrame({name: lesson.label_distance(table) for name, table in tables.items()}).round(2)
by_client.rename_axis("client")

# %% [markdown]
# How does the dial α move it? Ten clients, many draws:

# %%
alphas = np.geomspace(0.05, 100, 9).round(3)
turned = lesson.dial(labels, alphas, clients, seeds=10)
floor = turned[np.isinf(turned["alpha"])]["distance"]
fig, axes = plt.subplots(figsize=(SINGLE, 2.3))
skewed = turned[np.isfinite(turned["alpha"])]
mean_band(axes, skewed, "alpha", "distance", Look("Dirichlet(α)", SERIES[0], "o"), mark=True)
axes.axhspan(floor.min(), floor.max(), color=GREY, alpha=0.35, lw=0, label="ten IID splits")
axes.set(xscale="log", xlabel="α of the Dirichlet split", ylabel="mean label distance", ylim=(0, 1))
axes.legend()
out.figure(
    fig,
    "dial",
    caption="Mean label distance of Dirichlet splits over α, ten draws each, and of ten IID splits.",
)

# %% [markdown]
# Line: mean over ten draws, with its 95 % interval; grey: all of ten IID splits. At the left end the dial moves everything. At the
# right end something odd happens: the line goes *below* IID. There is no contradiction. With a large α each class is cut
# into equal shares on purpose, while IID draws from the pile and leaves the shares to chance. Two papers that both say
# "Dirichlet" may stand at opposite ends of this line, and "α = 100" is not "IID".
#
# ## 4. Does it matter for training?
#
# Five clients, LoRA, three rounds of five steps; the same start, the same number of steps for everybody. Only who holds
# what differs.

# %%
done = kit.run_cells(lesson.cells(seeds), device=device, label="partitions")
results = last_round(rounds_frame(done)).drop(columns=["gap", "epsilon"])
results["distance"] = [
    lesson.mean_distance(lesson.counts_of(lesson.SPLITS[r.split], labels, r.seed))
    for r in results.itertuples()
]
out.table(results, "results")
out.table(
    results.groupby("split", sort=False)[["distance", "accuracy"]].agg(["mean", "min", "max"]).reset_index()
)

# %%
fig, axes = plt.subplots(figsize=(SINGLE, 2.5))
for (split, rows), colour, marker in zip(results.groupby("split", sort=False), SERIES, "osD^", strict=False):
    axes.plot(rows["distance"], rows["accuracy"], ls="none", marker=marker, color=colour, ms=5, label=split)
axes.axhline(10, color=FAINT, lw=0.8, ls=":")
axes.annotate("guessing", (0.02, 10), (0, 2), textcoords="offset points", fontsize=7, color=GREY)
axes.set(
    xlabel="mean label distance of the split",
    ylabel="accuracy after 3 rounds, %",
    xlim=(0, 1),
    ylim=(0, None),
)
axes.legend()
out.figure(
    fig,
    "accuracy",
    caption="Accuracy after three rounds against the mean label distance of the split, one mark a run.",
)

# %% [markdown]
# One dot a run. The usual explanation: clients whose labels are far from everybody's pull the adapter in different
# directions, and little is left in their average. (The figure shows the loss, not its reason.) The dots of one colour are far apart, too: how sure a few seeds can make us is said by the verdicts.

# %%
out.claims(kit.judge_all(lesson.claims(), results))

# %%
out.note(
    [
        OWN,
        "The distance counts labels only. Clients may be unlike in their inputs, or hold different amounts (exercises 1 "
        "and 2): it then stays near 0.",
        "Accuracy after three rounds says how fast a split lets the adapter learn, not where it ends.",
    ]
)

# %% [markdown]
# ## Exercises
#
# Answer each in a cell of your own first (below the selected cell: press `b`). The solution comes after the question,
# folded: a click on its three dots opens it, and a click on those below it shows what it printed.
#
# **1. What the number does not see.** Compare `iid` and `quantity_skew` with a power law: label distance, and the
# ratio of the largest client to the smallest. Who decides the weighted average?

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
rows = []
for name in ("iid", "quantity_skew, power law"):
    sizes = tables[name].sum(axis=1)
    share = sizes.max() / sizes.sum()
    rows.append([name, lesson.mean_distance(tables[name]), sizes.max() / sizes.min(), share])
print(
    pd.DataFrame(
        rows, columns=["split", "label distance", "largest / smallest", "weight of the largest"]
    ).round(2)
)
# The distance is small for both; the sizes differ by an order of magnitude, and with weights n_k the largest client has a
# third of the say. Small clients have a larger distance by chance alone: look at their rows in the table by client.

# %% [markdown]
# **2. Unlike inputs.** The task `digits_domains` shows every digit in one of four looks (`groups`). Give each client
# one look (`by_group`), and measure the distance twice: of the labels, and of the looks. (`load_task(…).train` has `labels` and
# `groups`, 697 each; `split(labels, groups=…)` takes both; `label_counts` wants numbers from 0, and
# `np.unique(…, return_inverse=True)` makes them.)

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
domains = load_task(get_task("digits_domains")).train
looks, member = np.unique(domains.groups, return_inverse=True)
held = partitioner("by_group", num_clients=len(looks), seed=0).split(domains.labels, groups=domains.groups)
print("labels:", round(lesson.mean_distance(label_counts(held, domains.labels)), 3))
print("looks: ", round(lesson.mean_distance(label_counts(held, member)), 3))
# Labels alike, inputs not at all: "feature shift". A split has as many distances as there are things to count.

# %% [markdown]
# **3. Write one.** A partitioner `two_camps`: half of the clients share the even digits, the others the odd ones. It is a
# frozen dataclass, derived from `Partitioner`, with a `name: ClassVar[str]` and a method `_deal(self, labels, groups)`
# that returns one index array for each of `self.num_clients`, and draws from `self._rng()` only. Register it (`@register`
# above `@dataclass(frozen=True)`), and measure it.


# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
@register
@dataclass(frozen=True)
class TwoCamps(Partitioner):
    """Even labels to the first half of the clients, odd ones to the others."""

    name: ClassVar[str] = "solution_two_camps"  # yours may have taken the other name

    def _deal(self, labels, groups):
        first = self.num_clients // 2
        rng = self._rng()
        even, odd = (rng.permutation(np.flatnonzero(labels % 2 == rest)) for rest in (0, 1))
        return [*np.array_split(even, first), *np.array_split(odd, self.num_clients - first)]


camps = label_counts(partitioner("solution_two_camps", num_clients=10, seed=0).split(labels), labels)
print("mean distance:", round(lesson.mean_distance(camps), 3))
# About one half: five of ten classes are missing at each client. The checks that every partitioner gets (parts are
# disjoint, nobody is empty) ran without a line of yours, and the name can now stand in any run of this notebook.

# %% [markdown]
# ## Where to go on
#
# * `notebooks/ffa-lora/table2.ipynb`: FFA-LoRA under i.i.d., mild and severe label shares.
# * `notebooks/fed-hello/table2.ipynb`: "Non-IID 10/1.0" is `pathological` with 10 classes a client.
# * `fedlora_kit/partition/`: one partitioner a file.
