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
# # Start here: from a partition to a picture
#
# Five minutes of reading, about a minute of running, no network and no GPU.
#
# **Federated learning** trains one model on data that stays with its owners: in every *round* each *client*
# trains the current model on its own examples and sends back what changed; the server averages. With a large
# pre-trained model nobody wants to send the model, so only a small **LoRA adapter** travels: beside a frozen
# weight $W_0$ (shape out × in) stand two thin matrices, $A$ (r × in) and $B$ (out × r), and the layer computes
#
# $$ W x = W_0 x + \tfrac{\alpha}{r} B A x . $$
#
# This notebook splits a task among three clients, trains a federated adapter, and asks one question whose
# answer everything else here depends on: **does the pre-training under the adapter matter?** An adapter can
# only steer what the backbone already knows, so LoRA on a *pre-trained* backbone should beat LoRA on the same
# architecture with *random* weights. It is checked for a text and for an image task.

# %% tags=["parameters"]
profile: str = "smoke"  # smoke | laptop | small | paper; this lesson is the same in all of them
seeds: int = 3  # number of seeds, from 0
device: str = "auto"  # auto | cpu | cuda
output_dir: str = "figures"  # where table, figure and claims go, relative to the repository

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from fedlora_kit import notebook as kit
from fedlora_kit.data import get_task, load_task
from fedlora_kit.experiments.run import run
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.looks import DOUBLE, FAINT, SERIES, Look
from fedlora_kit.papers.lessons import start_here as lesson
from fedlora_kit.partition import label_counts, partition_figure, partitioner
from fedlora_kit.reporting.style import mean_band
from fedlora_kit.running.many import run_all

out = kit.begin("start_here", profile, output_dir)

# %% [markdown]
# ## 1. The data, and who holds it
#
# The text task is built in: short remarks, to be called negative (0) or positive (1). Nothing is downloaded.

# %%
task = get_task("polarity")
examples = load_task(task).train
for sentence, label in list(zip(examples.columns[0], examples.labels, strict=True))[:4]:
    print(task.label_names[label].rjust(9), "|", sentence)
print(len(examples), "training examples")

# %% [markdown]
# In the real world clients do not hold the same mixture of labels. FFA-LoRA's experiments give three clients
# fixed proportions: one holds 10 % negative and 90 % positive examples, the second the reverse, the third half
# of each. A *partitioner* turns labels into one array of example numbers a client.

# %%
split = partitioner("label_shares", num_clients=3, shares=[[0.1, 0.9], [0.9, 0.1], [0.5, 0.5]], seed=0)
parts = split.split(examples.labels)
counts = label_counts(parts, examples.labels, num_classes=2)  # (clients, classes)
partition_figure(counts, task.label_names, "Who holds which examples")

# %% [markdown]
# ## 2. One federated run
#
# A run is described by data, not by code. The description is checked (try a misspelt key), and its content is
# its key in the store: a run that is already there is not trained again.

# %%
description = lesson.description("text", weights="pretrained", seed=0)
spec = RunSpec.parse(description)
entry = run(spec, device=device)
print("key", entry.key)
pd.DataFrame(
    {
        "round": [h["round"] + 1 for h in entry.history],  # a record counts from 0, what people read from 1
        "train loss": [h["train_loss"] for h in entry.history],
        "accuracy %": [100 * h["eval"]["validation"]["accuracy"] for h in entry.history],
        "bytes sent": [h["bytes_up"] for h in entry.history],
    }
).round(3)

# %% [markdown]
# What happened in each round is short enough to say in six lines; `fedlora_kit/training/rounds.py` is the
# real one:
#
# ```python
# for round in range(rounds):
#     for client in cohort:
#         slot.write(global_adapter)             # copy a few tensors in; the backbone stays where it is
#         train(model, client.examples)          # 5 steps of SGD on A and B
#         updates.append(slot.read())            # and out again
#     global_adapter = weighted_mean(updates)    # by numbers of examples
# ```

# %% [markdown]
# ## 3. Does pre-training matter?
#
# Same clients, same rounds, same adapter; once on the pre-trained backbone, once on random weights, for
# several seeds, for text and for images (handwritten digits turned by a quarter; the backbone has seen other
# digits, in other poses).

# %%
cases = lesson.cases(seeds)
finished = run_all(
    [RunSpec.parse(lesson.description(m, weights=w, seed=s)) for m, w, s in cases],
    device=device,
    label="start_here",
)
curves = lesson.curves(cases, finished)
curves.head()

# %%
looks = {"pretrained": Look("pre-trained", SERIES[0], "o"), "random": Look("random", FAINT, "s", "--")}
fig, panels = plt.subplots(1, 2, figsize=(DOUBLE, 2.5))
for axes, (task, rows) in zip(panels, curves.groupby("task", sort=False), strict=True):
    for weights, of_weights in rows.groupby("backbone", sort=False):
        mean_band(axes, of_weights, "round", "accuracy", looks[weights], mark=True)
    axes.axhline(lesson.chance(task), color=FAINT, lw=0.8, ls=":")
    axes.set(title=task, xlabel="round", ylabel="accuracy, %")
panels[0].legend(title="backbone")
out.figure(
    fig,
    caption="Accuracy over rounds of federated LoRA on a pre-trained and on a random backbone, for text and images: mean "
    f"over {seeds} seeds with its 95 % interval; dotted: guessing.",
)

# %% [markdown]
# Lines are means over seeds, bands their 95 % intervals; the dotted line is guessing. The table gives the last
# round.

# %%
final = curves[curves["round"] == curves.groupby("task")["round"].transform("max")]
table = (
    final.groupby(["task", "backbone"], sort=False)["accuracy"]
    .agg(mean="mean", std=lambda s: s.std(ddof=1) if len(s) > 1 else np.nan, seeds="size")
    .reset_index()
)
out.table(curves, "curves")
out.table(table)

# %% [markdown]
# ## 4. The claim, judged
#
# In this kit no sentence of the form "X is better than Y" is left to the eye. A claim is a small function over
# the results; it is *reproduced* only if the 95 % interval over seeds lies wholly on its side.

# %%
out.claims(kit.judge_all(lesson.claims(), final))

# %%
out.note(lesson.DEVIATIONS)

# %% [markdown]
# ## Where to go on
#
# * `notebooks/ffa-lora/figure1.ipynb`: why differential privacy hurts LoRA more than it must.
# * `notebooks/ffa-lora/table1.ipynb`: LoRA and FFA-LoRA, with and without differential privacy.
# * `fedlora list` shows every item of the three papers; `fedlora runs` shows what this notebook has stored.
