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
# # FFA-LoRA, discordance 1: averaging the factors is not averaging the product
#
# **What the paper argues.** The server wants the mean of what the clients learned, $\overline{B_k A_k}$. LoRA with
# federated averaging gives it $\bar B \bar A$ instead. The two differ as soon as clients differ; FFA-LoRA, whose $A$ is
# common and fixed, has $\bar B A_0 = \overline{B_k A_0}$ exactly. The paper argues this without measuring it, so this
# notebook measures: how large is the error, and how does it grow with the local steps and with heterogeneity?

# %% tags=["parameters"]
profile: str = "smoke"  # smoke | laptop | small | paper
seeds: int | None = None  # number of reported seeds, from 0; none: the profile's own
device: str = "auto"  # auto | cpu | cuda
output_dir: str = "figures"  # where the results go, relative to the repository
tasks: list[str] | None = None  # sst2 or polarity (its stand-in); or any other of 2 or 3 classes
backbone: str | None = None  # such as sentence-transformers/all-MiniLM-L6-v2 or FacebookAI/roberta-large
splits: list[str] | None = None  # iid, mild, severe
local_steps: list[int] | None = None  # local steps a round that are compared
rounds: int | None = None  # federated rounds
batch_size: int | None = None  # B, examples a step at each client
train_limit: int | None = None  # at most so many training examples
eval_limit: int | None = None  # at most so many scored examples a split

# %%
import torch
from matplotlib import pyplot as plt

from fedlora_kit import notebook as kit
from fedlora_kit.looks import SINGLE, of_method, ramp
from fedlora_kit.methods.aggregation_gap import aggregation_gap
from fedlora_kit.methods.base import ClientUpdate
from fedlora_kit.papers.ffa_lora import discordance1
from fedlora_kit.study.words import SPLITS

out = kit.begin("ffa-lora/discordance1", profile, output_dir)
sweep = discordance1.sweep(
    profile,
    local_steps,
    seeds=seeds,
    tasks=tasks,
    backbone=backbone,
    rounds=rounds,
    batch_size=batch_size,
    splits=splits,
    train_limit=train_limit,
    eval_limit=eval_limit,
)
sweep

# %% [markdown]
# ## The idea, in a few lines
#
# Two clients with opposite $B$: the mean of $B$ is zero, so $\bar B \bar A = 0$, while the mean of the products is not.
# The error is 100 % of what was to be averaged.

# %%
start = {"layer.lora_A.weight": torch.ones(1, 2), "layer.lora_B.weight": torch.zeros(3, 1)}
one = ClientUpdate(
    0, 1, {"layer.lora_A.weight": torch.tensor([[2.0, 0.0]]), "layer.lora_B.weight": torch.ones(3, 1)}
)
two = ClientUpdate(
    1, 1, {"layer.lora_A.weight": torch.tensor([[0.0, 2.0]]), "layer.lora_B.weight": -torch.ones(3, 1)}
)
mean = {"layer.lora_A.weight": torch.ones(1, 2), "layer.lora_B.weight": torch.zeros(3, 1)}
print("LoRA:    ", aggregation_gap(start, mean, [one, two]))
frozen = [
    ClientUpdate(u.client, 1, {"layer.lora_B.weight": u.tensors["layer.lora_B.weight"]}) for u in (one, two)
]
print("FFA-LoRA:", aggregation_gap(start, {**start, "layer.lora_B.weight": torch.zeros(3, 1)}, frozen))

# %% [markdown]
# ## The runs
#
# Every run records the relative error of its aggregation, round by round, over all adapted layers together. The
# first round is left out of the mean: $B$ starts at 0, so $A$'s first gradient is 0, and after a single local step
# no client's $A$ has moved. That zero says nothing about heterogeneity.

# %%
done = kit.run_cells(discordance1.cells(sweep), device=device, label="discordance 1")
gaps = discordance1.gap_frame(done)
out.table(gaps, "gaps")
runs = discordance1.per_run(gaps)
out.table(runs, "runs", digits=4)
summary = (
    runs.groupby(["method", "split", "local_steps"], sort=False)["gap"].agg(["mean", "std"]).reset_index()
)
out.table(summary, digits=4)

# %% [markdown]
# ## The figure

# %%
fig, axes = plt.subplots(figsize=(SINGLE, 2.6))
looks = dict(zip(("iid", "mild", "severe"), zip(ramp(3), "oD^", strict=True), strict=True))
for split in sweep.base.splits:
    rows = summary[(summary["method"] == "lora") & (summary["split"] == split)].sort_values("local_steps")
    colour, marker = looks[split]
    axes.errorbar(
        rows["local_steps"],
        100 * rows["mean"],
        yerr=100 * rows["std"],
        color=colour,
        marker=marker,
        label=f"LoRA, {SPLITS[split]}",
    )
flat = summary[summary["method"] == "ffa-lora"].groupby("local_steps")["mean"].max()
axes.plot(flat.index, 100 * flat, label="FFA-LoRA, worst split", **of_method("ffa-lora").line())
axes.set(xscale="log", xlabel="local steps a round", ylabel="error of the average, % of its norm")
axes.set_xticks(sweep.local_steps, [str(s) for s in sweep.local_steps])
axes.minorticks_off()
axes.legend()
out.figure(
    fig,
    caption="Relative error of averaging A and B apart, by local steps and split: mean and standard deviation over seeds. "
    "FFA-LoRA averages B alone, so that its error is that of rounding.",
)

# %% [markdown]
# ## Beside the paper
#
# The paper gives no number.

# %%
reported = kit.published("ffa-lora", "discordance1")
out.comparison(
    kit.compare(runs, reported, ["split", "steps", "method"], "relative error", "gap", comparable=False)
)

# %% [markdown]
# ## The claims, judged

# %%
out.claims(kit.judge_all(discordance1.claims(sweep.local_steps), runs))

# %% [markdown]
# ## Where this departs from the paper

# %%
out.note(discordance1.deviations(sweep))
