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
# # Which layers should a small client train?
#
# Ten minutes of reading, about a minute of running (less the second time), no network and no GPU.
#
# A telephone cannot train what a workstation can. If every client trains what the weakest can, capacity lies idle
# (*Straggler*); if only the strong take part, the data of the weak are lost (*Exclusive*). **Fed-HeLLo** (Zhang, Liu,
# Xu, Hu, IEEE TNNLS 2025) lets each client train as many *layers* of the LoRA adapter as it can, and asks two questions:
# which ones, and how does one average adapters of which everybody trained another part?

# %% tags=["parameters"]
profile: str = "smoke"  # smoke | laptop | small | paper; this lesson is the same in all of them
seeds: int = 3  # number of seeds, from 0 (at least 2 for the claims)
device: str = "auto"  # auto | cpu | cuda
output_dir: str = "figures"  # where table, figure and claims go, relative to the repository

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from fedlora_kit import notebook as kit
from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.experiments.placing import tiny_device
from fedlora_kit.experiments.setup import build
from fedlora_kit.experiments.spec import MethodSpec
from fedlora_kit.looks import FAINT, SINGLE, of_method
from fedlora_kit.methods import ClientUpdate, FedIT, Resources
from fedlora_kit.methods.allocation import (
    importance_levels,
    importance_probabilities,
    pattern_layers,
    pattern_probabilities,
)
from fedlora_kit.methods.defects import frozen_by_substring
from fedlora_kit.papers.fed_hello import patterns
from fedlora_kit.papers.lessons import layer_allocation as lesson
from fedlora_kit.papers.lessons.small import OWN
from fedlora_kit.training.federation import cohort_of
from fedlora_kit.training.fisher import fisher_scores
from fedlora_kit.training.rounds import run_federation

out = kit.begin("lessons/layer_allocation", profile, output_dir)
place = tiny_device(device)

# %% [markdown]
# ## 1. Clients of three sizes
#
# The paper's configuration "1:1:1": a third of the clients can train half of the layers, a third three quarters, a third
# all. With the paper's 12 layers and 100 clients, and with ours of 4 layers and 12 clients:

# %%
resources = Resources(groups=(1, 1, 1), layers=(0.5, 0.75, 1.0))
pd.DataFrame(
    {
        "group": range(3),
        "of 100 clients": resources.group_sizes(100),
        "of 12 layers": [resources.num_layers(g, 12) for g in range(3)],
        "of 12 clients": resources.group_sizes(12),
        "of 4 layers": [resources.num_layers(g, 4) for g in range(3)],
    }
)

# %% [markdown]
# ## 2. Geometry: which layers?
#
# The simplest answer is a fixed shape (**GD-HLA**): near the input, near the head, both ends (a *bottleneck*), or spread
# evenly. But then some layers are never trained by any weak client. **RGD-HLA** turns the shape into probabilities (a layer's
# share of all entries in the lists of clients with 6, 9 and 12 layers), and every client draws its layers anew in each round.

# %%
for pattern in ("triangle", "inverted_triangle", "bottleneck", "uniform"):
    print(f"{pattern:18s} 6 of 12 layers: {pattern_layers(pattern, 6, 12)}")
print(
    "bottleneck, in how many of the three lists (27 entries) each layer is:",
    (27 * pattern_probabilities("bottleneck", (6, 9, 12), 12)).round().astype(int),
)

# %%
out.figure(
    patterns.figure(patterns.rates(patterns.Setting(draws=300, seeds=(0,)))),
    caption="Four geometries, as fixed lists and as what 300 draws give: share of rounds in which a client that can train 6, "
    "9 or 12 layers trains each of 12 layers.",
)

# %% [markdown]
# Each row is a group (6, 9 or 12 layers a client), each column a layer; the darker, the more of its rounds a client trains
# it. Left the fixed lists, right what 300 draws give. The shape is still there, but nobody is shut out.
#
# ## 3. Importance: ask the data
#
# **FIM-HLA** measures which layers matter. The diagonal of the *Fisher information* is the mean squared gradient of
# $\log p(y|x)$, entry by entry:
#
# $$ F_i = \frac1n \sum_{x, y} \Big( \frac{\partial \log p(y|x)}{\partial \theta_i} \Big)^2 , $$
#
# large where a small change of $\theta_i$ changes the answers. The y here are the examples' own labels (the *empirical* Fisher
# information; the exact one would let the model draw them). A layer's score is the sum over its LoRA tensors (here q and v:
# $A$ of 16 × 64 and $B$ of 64 × 16 each) of the norm of their F, on a few *proxy* examples that no client trains on. At the
# start it is $B$'s alone: $B$ is zero, so that $A$ has no gradient.

# %%
setting = lesson.setting(seeds)
spec = next(one.spec for one in lesson.cells(1) if one.coords["method"] == "fed-hello")
fed = build(spec, place)
slot = AdapterSlot(fed.model)
start = slot.read()


def scores_of(state):
    slot.set_trainable(name for name in slot.names if ".lora_" in name)
    slot.write(state)
    return fisher_scores(fed.model, slot, fed.proxy, place)


before = scores_of(start)
trained = run_federation(build(spec, place)).state
after = scores_of(trained)
print(len(fed.proxy), "proxy examples")
importance = pd.DataFrame({"score at the start": before, "score after 6 rounds": after})
importance["level"] = importance_levels(after, 3)
importance["probability to be drawn first"] = importance_probabilities(after, 3)
importance.rename_axis("layer").round(4)

# %% [markdown]
# The scores are sorted into three levels (k-means in one dimension), which count 1 : 2 : 3 when layers are drawn. Only the
# level of a score is used, not its value, which is less at the mercy of the 20 examples.

# %%
fig, axes = plt.subplots(figsize=(SINGLE, 2.1))
spots = np.arange(len(before))
for side, scores, label in ((-0.2, before, "at the start"), (0.2, after, "after 6 rounds")):
    colour = FAINT if scores is before else of_method("fed-hello").colour
    axes.bar(spots + side, np.array(scores) / sum(scores), width=0.38, label=label, color=colour)
axes.set_xticks(spots)
axes.set(xlabel="layer, from the input", ylabel="share of the Fisher score")
axes.legend()
out.figure(
    fig,
    "importance",
    caption="Fisher score of each of four layers, as a share of their sum, before and after training.",
)

# %% [markdown]
# Grey before training, coloured after it. Look for the layers that stand apart from the others: those make the levels.
#
# ## 4. The average, layer by layer
#
# The first round of our small federation: four clients are drawn, and each trains its own layers.

# %%
fed = build(spec, place)
cohort = cohort_of(fed, 0)
held = lesson.allocated(fed.method, cohort, 0, list(start))
out.figure(
    lesson.figure(held, cohort, [len(fed.clients[k]) for k in cohort]),
    "round",
    caption="Which of four layers each client of the first round trains.",
)

# %% [markdown]
# The rule: **a layer is averaged over those clients that trained it**, weighted by their examples. A layer that nobody
# trained stays as it was. To see what happens otherwise, let the four train everything alone (`local-only` keeps their
# adapters), and hand to the server once what they trained, and once *all* tensors, the untrained ones as they came:

# %%
alone = build(spec.model_copy(update={"method": MethodSpec(name="local-only")}), place)
personal = run_federation(alone).personal
whole = {k: ClientUpdate(k, len(alone.clients[k]), {**start, **personal[k]}) for k in cohort}
sent = [lesson.what_is_sent(fed.method, update, 0) for update in whole.values()]
padded = [ClientUpdate(u.client, u.num_examples, {**start, **u.tensors}) for u in sent]
right = lesson.moved(start, fed.method.aggregate(start, sent))
wrong = lesson.moved(start, FedIT().aggregate(start, padded))
examples = np.array([u.num_examples for u in sent])
layers = pd.DataFrame(
    {
        "clients that train it": held.sum(axis=0),
        "share of the examples": (held * examples[:, None]).sum(axis=0) / examples.sum(),
        "change, averaged over them": right,
        "change, averaged over all": wrong,
    }
)
layers["ratio"] = layers["change, averaged over all"] / layers["change, averaged over them"]
out.table(layers.rename_axis("layer").reset_index(), "layers", digits=4)
layers.rename_axis("layer").round(4)

# %% [markdown]
# The ratio is the share of the examples: with the untrained tensors averaged in, a layer's learning rate is cut by as
# much as clients leave it out. That is a common mistake, silent, and different for each layer.
#
# ## 5. Does it pay?
#
# Six rounds, one step each, twelve clients with two digits each.

# %%
done = kit.run_cells(lesson.cells(seeds), device=device, label="layer_allocation")
results = lesson.frame(done)
out.table(results, "results")
table = kit.mean_std_table(results, rows=["method"], column="split").rename(columns={"pat_10": "accuracy, %"})
table.insert(1, "in words", table["method"].map(lesson.WORDS))
table["bytes a client sends"] = results.groupby("method", sort=False)["sent_bytes"].mean().to_numpy().round()
pd.set_option("display.max_colwidth", None)
out.table(table)

# %%
out.claims(kit.judge_all(lesson.claims(), results))

# %% [markdown]
# Six rounds on digits cannot say which method is best; `notebooks/fed-hello/table2.ipynb` is the place for that. The first
# claim is another kind: with equal clients there is nothing to allocate, so Fed-HeLLo must *be* FedAvg of LoRA, to the
# last bit. A method for unequal clients that fails this test has changed something else as well.

# %%
out.note(
    [
        OWN,
        "The paper's figure of the geometries is not known; which of the two triangles it calls inverted is our choice.",
        "The Fisher scores are as the text describes them; the released code scores one image and forgets the result after a "
        "round (notebooks/fed-hello/released_vs_described.ipynb).",
    ]
)

# %% [markdown]
# ## Exercises
#
# Answer each in a cell of your own first (below the selected cell: press `b`). The solution comes after the question,
# folded: a click on its three dots opens it, and a click on those below it shows what it printed.
#
# **1. A bug to predict.** The released code freezes layers by looking for the number in the tensor's *name*, as text. A client
# of a 12-layer model leaves out layer 1 (it is allocated the other eleven). Which layers are frozen?

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
rest = [layer for layer in range(12) if layer != 1]
print("left out: 1; frozen besides:", frozen_by_substring(rest, 12))
print("left out: 0; frozen besides:", frozen_by_substring(range(1, 12), 12))
# "1" is in "10" and "11" as well, "0" in "10". Parse the number, never search for it (`models.targets.layer_index`).

# %% [markdown]
# **2. Who is idle?** With resources 6:3:1 (most clients are weak) and a fixed *triangle*, in how many of 50 rounds does
# *nobody* train the last layer of our 4? And when the layers are drawn? Work it out first for the fixed shape (how many of 12
# clients are strong, how likely is none of them among the four of a round?), then count. (`method("gd-hla", resources=…,
# pattern="triangle")` and `"rgd-hla"` are the two; `.bind(fed.method.context)` tells a method its federation, then
# `lesson.allocated` answers, round by round.)

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
from fedlora_kit.methods import method

poor = {"groups": [6, 3, 1], "layers": [0.5, 0.75, 1.0]}
for name in ("gd-hla", "rgd-hla"):
    one = method(name, resources=poor, pattern="triangle")
    one.bind(fed.method.context)
    empty = np.zeros(4, dtype=int)
    for r in range(50):
        empty += ~lesson.allocated(one, cohort_of(fed, r), r, list(start)).any(axis=0)
    print(name, "rounds in which nobody trains layer 0, 1, 2, 3:", empty.tolist())
# The fixed shape leaves the last layer to the two strong clients of twelve, and waits until one is drawn: in a share
# (10·9·8·7)/(12·11·10·9) = 0.42 of the rounds nobody is, 21 of 50. Drawing layers gives it to the weak ones too, now and then.

# %% [markdown]
# **3. Levels.** Four layers have the scores 0.1, 0.2, 5 and 9. What are their levels and their probabilities with three
# levels, and with one?

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
for levels in (3, 1):
    found = importance_levels([0.1, 0.2, 5.0, 9.0], levels).tolist()
    print(levels, "levels:", found, importance_probabilities([0.1, 0.2, 5.0, 9.0], levels).round(3).tolist())
# 0.1 and 0.2 share the lowest level: weights 1, 1, 2, 3 of 7. With one level importance counts for nothing: every layer has
# the same probability (that is FedRA).

# %% [markdown]
# ## Where to go on
#
# * `notebooks/fed-hello/table2.ipynb`: all methods under three splits.
# * `notebooks/fed-hello/strategies.ipynb`: fixed, drawn and by importance, pattern by pattern.
# * `fedlora_kit/methods/layerwise.py`: what a method that allocates layers has to say.
