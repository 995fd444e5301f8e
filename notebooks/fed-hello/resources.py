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
# # Fed-HeLLo: what a client trains, sends and holds
#
# **What the paper claims.** Clients differ in what they can afford, and Fed-HeLLo lets each train as many layers as fit:
# 6, 9 or 12 of 12. Here the costs of every method are counted for one client of each group, on modules of the size of
# the paper's own model (ViT-B/16, LoRA of rank 16 on query and value). Nothing is trained. (Zhang, Liu, Xu, Hu, IEEE
# TNNLS 2025; whether the paper has such a table is not known.)

# %% tags=["parameters"]
profile: str = "smoke"  # smoke | laptop | small | paper; the counts are the same in all
seeds: int | None = None  # nothing is random here, so it changes nothing
device: str = "auto"  # auto | cpu | cuda; nothing is computed, so it changes nothing
output_dir: str = "figures"  # where the results go, relative to the repository
methods: list[str] | None = None  # straggler, exclusive, fedra, hetlora, flexlora, fed-hello, lora, flora

# %%
from fedlora_kit import notebook as kit
from fedlora_kit.methods.resources import ROC_111
from fedlora_kit.papers.fed_hello import resources

out = kit.begin("fed-hello/resources", profile, output_dir)
names = resources.checked(profile, methods)
names

# %% [markdown]
# ## The idea, in a few lines
#
# One layer's LoRA is $A$ (16 × 768) and $B$ (768 × 16), on query and on value. A client's share of the layers times
# that is what it trains; what it sends is as large; AdamW holds four numbers for each (value, gradient, two moments).

# %%
for group, name in enumerate(resources.GROUPS):
    layers = ROC_111.num_layers(group, 12)
    trained = layers * resources.LAYER_PARAMETERS
    print(f"{name:7s} {layers:2d} layers: {trained:,} parameters, {4 * trained / 1e6:.2f} MB sent")

# %% [markdown]
# ## The counts
#
# On the real modules, for each method.

# %%
costs = resources.costs(names)
out.table(costs, "costs")

# %% [markdown]
# ## The table
#
# Parameters that train; megabytes ($10^6$ bytes) that a client sends and gets a round, and that its training holds for
# the adapter (without backbone and activations).

# %%
wide = costs.assign(
    **{f"{what}_mb": costs[f"{what}_bytes"] / 1e6 for what in ("sent", "received", "training")}
)
values = ["trained_parameters", "sent_mb", "received_mb", "training_mb"]
table = wide.pivot(index="method", columns="group", values=values).reindex(names)
table = table.reindex(columns=resources.GROUPS, level="group")
table["trained_parameters"] = table["trained_parameters"].astype(int)
out.table(table)

# %% [markdown]
# What a step on one image keeps and computes: megabytes of activations, and $10^9$ operations forward and backward.
# Layers below the lowest trained one need no backward pass; a client that trains few layers saves where these are high
# up. Rank hardly matters here: a client of rank 1 passes through all layers all the same.

# %%
step = costs.assign(
    activations_mb=costs["activation_bytes"] / 1e6,
    forward_gflop=costs["forward_flops"] / 1e9,
    backward_gflop=costs["backward_flops"] / 1e9,
)
values = ["activations_mb", "forward_gflop", "backward_gflop"]
table = step.pivot(index="method", columns="group", values=values).reindex(names)
out.table(table.reindex(columns=resources.GROUPS, level="group").round(1), "step_costs")

# %% [markdown]
# What a cohort of ten sends in a round on average, in megabytes, under both resource configurations:

# %%
out.table(resources.per_round(costs), "per_round")

# %% [markdown]
# ## Beside the paper
#
# No number is known.

# %%
reported = kit.published("fed-hello", "resources")
by = ["method", "group"]
out.comparison(kit.compare(costs, reported, by, "bytes sent a round", "sent_bytes", comparable=False))

# %% [markdown]
# ## The claims, judged

# %%
out.claims(kit.judge_all(resources.claims(), costs))

# %% [markdown]
# ## Where this departs from the paper

# %%
out.note(list(resources.DEVIATIONS))
