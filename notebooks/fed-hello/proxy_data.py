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
# # Fed-HeLLo: which examples the Fisher scores come from
#
# **What the paper claims.** Fed-HeLLo scores the layers on a small proxy set. The released code has four variants of it:
# random training examples, the same balanced over the classes, an external set, and none at all, where the examples are
# trained on instead. Does it matter which, and are the scores worth the examples? (Zhang, Liu, Xu, Hu, IEEE TNNLS 2025;
# that the paper compares them is inferred from the code, its numbers are not known.)

# %% tags=["parameters"]
profile: str = "smoke"  # smoke | laptop | small | paper
seeds: int | None = None  # number of reported seeds, from 0; none: the profile's own
device: str = "auto"  # auto | cpu | cuda
output_dir: str = "figures"  # where the results go, relative to the repository
task: str | None = None  # cifar100 or digits; or any other in classes
backbone: str | None = None  # such as facebook/dinov2-small or google/vit-base-patch16-224-in21k
split: str | None = None  # iid, pat_20 or pat_10
sources: list[str] | None = None  # random, balanced, external, trained_on
clients: int | None = None  # clients there are
cohort: int | None = None  # clients drawn a round
rounds: int | None = None  # federated rounds
lr: float | None = None  # learning rate of the first round, for all methods
proxy_examples: int | None = None  # examples that the layers are scored on
train_limit: int | None = None  # at most so many training examples
eval_limit: int | None = None  # at most so many scored examples

# %%
import numpy as np
import pandas as pd
from IPython.display import display

from fedlora_kit import notebook as kit
from fedlora_kit.experiments.set_aside import proxy_rows
from fedlora_kit.papers.fed_hello import proxy_data as proxy
from fedlora_kit.papers.fed_hello.held import held
from fedlora_kit.papers.fed_hello.importance import rank_agreement, scores_frame
from fedlora_kit.papers.fed_hello.table2 import WORDS
from fedlora_kit.randomness import Streams

out = kit.begin("fed-hello/proxy_data", profile, output_dir)
setting = proxy.setting(
    profile,
    split,
    seeds=seeds,
    task=task,
    backbone=backbone,
    clients=clients,
    cohort=cohort,
    rounds=rounds,
    lr=lr,
    proxy_examples=proxy_examples,
    train_limit=train_limit,
    eval_limit=eval_limit,
)
names = proxy.chosen_sources(sources)
setting

# %% [markdown]
# ## The idea, in a few lines
#
# What is compared:

# %%
for name in names:
    print(f"{name:11s} {proxy.SOURCES[name]}")

# %% [markdown]
# How many examples of each class a random and a balanced proxy set hold, at the first seed:

# %%
cells = proxy.cells(setting, names)
train, _ = kit.load_data(cells[0].spec.data, setting.backbone)
spread = {}
for name in ("random", "balanced"):
    rows = proxy_rows(train, setting.proxy_examples, Streams(0), name)
    spread[name] = np.bincount(train.labels[rows], minlength=kit.get_task(setting.task).num_labels)
display(pd.DataFrame(spread, index=kit.get_task(setting.task).label_names).T)

# %% [markdown]
# ## Who holds what

# %%
kind = kit.get_task(setting.task)
split = setting.splits[0]
display(kit.partition_figure(held(setting, split), kind.label_names, WORDS[split]))

# %% [markdown]
# ## The runs

# %%
done = kit.run_cells(cells, device=device, label="runs")
results = kit.results_frame(done)
out.table(results, "results")

# %% [markdown]
# ## The table
#
# Test accuracy in %, mean ± standard deviation over seeds: the best over all rounds, the mean of the last ten, the last.

# %%
columns = {"accuracy_best": "best", "accuracy_last10": "last 10 rounds", "accuracy": "last round"}
melted = results.melt(["source", "seed"], list(columns), "measure", "percent").replace({"measure": columns})
out.table(kit.mean_std_table(melted, rows=["source"], column="measure", value="percent"))

# %% [markdown]
# Do the sources find the same layers? The layers' shares of the scores at the last refresh, mean over seeds, in %; then
# Spearman's rank correlation of the scores between the sources, seed by seed.

# %%
scores = scores_frame(done, ["source"])
last = scores[scores["round"] == scores["round"].max()].assign(percent=lambda f: 100 * f["share"])
shares = last.pivot_table(index="source", columns="layer", values="percent", sort=False).round(1)
out.table(shares.rename(columns=lambda layer: f"layer {layer}").reset_index(), "layer_shares")

# %%
agreement = rank_agreement(scores, "source", ["seed", "round"])
out.table(agreement.groupby("seed", as_index=False)[["rho", "lowest"]].mean().round(2), "agreement")

# %% [markdown]
# ## Beside the paper
#
# No number of this comparison is known.

# %%
reported = kit.published("fed-hello", "proxy_data")
by = ["split", "source"]
out.comparison(kit.compare(results, reported, by, "best test accuracy %", "accuracy_best", comparable=False))

# %% [markdown]
# ## The claims, judged

# %%
out.claims(kit.judge_all(proxy.claims(names), results))

# %% [markdown]
# ## Where this departs from the paper

# %%
out.note(proxy.deviations(setting))
