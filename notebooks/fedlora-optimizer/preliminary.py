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
# # FedLoRA-Optimizer, preliminary experiment: what moves in A, and what in B?
#
# **What the paper finds.** LoRA is trained on several tasks of Dolly, and each factor is split into magnitude and
# direction. A's *direction* varies about 1.7 times as much as B's; B's *magnitude* about 41 times as much as A's. That is
# why A's direction goes to the global optimiser and B's magnitude to the local ones. (Zhao et al., arXiv 2510.11274.
# Both ratios are known from summaries only; how the variation is defined is not known.)
#
# **What speaks against it.** Fed-ALoRA (arXiv 2509.25414), also with LLaMA2-7B and Dolly, finds that A hardly changes and
# that most of the directional change is in B. So the definitions matter: here they are varied.

# %% tags=["parameters"]
profile: str = "smoke"  # smoke | laptop | small | paper
seeds: int | None = None  # number of reported seeds, from 0; none: the profile's own
device: str = "auto"  # auto | cpu | cuda
output_dir: str = "figures"  # where the results go, relative to the repository
task: str | None = None  # instructions, dolly or natural_instructions; or any other of answers
backbone: str | None = None  # such as kit/instruct-tiny or meta-llama/Llama-2-7b-hf
points: list[int] | None = None  # steps after which the adapters are looked at
batch_size: int | None = None  # examples a step
lr: float | None = None  # learning rate
train_limit: int | None = None  # at most so many training examples

# %%
import pandas as pd
import torch

from fedlora_kit import notebook as kit
from fedlora_kit.models.components import decompose
from fedlora_kit.papers.fedlora_optimizer import preliminary
from fedlora_kit.papers.fedlora_optimizer.variation import factor_variation
from fedlora_kit.running.many import run_all

out = kit.begin("fedlora-optimizer/preliminary", profile, output_dir)
setting = preliminary.setting(
    profile,
    seeds=seeds,
    task=task,
    backbone=backbone,
    batch_size=batch_size,
    lr=lr,
    train_limit=train_limit,
)
at = preliminary.sweep_points(profile, points)
setting

# %% [markdown]
# ## The idea, in a few lines
#
# $\Delta M$ is the mean change of the vectors' lengths, $\Delta D$ the mean of one minus the cosine (DoRA's formulas). A
# vector that doubles changes in magnitude alone, one that turns in direction alone:

# %%
before = torch.tensor([[3.0, 4.0]])
for after in (torch.tensor([[6.0, 8.0]]), torch.tensor([[-4.0, 3.0]])):
    magnitude, direction = factor_variation(decompose(after, 1), decompose(before, 1), dim=1)
    print(f"ΔM {magnitude:.2f}   ΔD {direction:.2f}")

# %% [markdown]
# ## The runs
#
# One adapter a task, all from the same start; nothing is averaged.

# %%
planned = preliminary.specs(setting, at)
done = run_all([spec for _, _, spec in planned], device=device)
finished = [(seed, steps, run) for (seed, steps, _), run in zip(planned, done, strict=True)]
named = [{"steps": steps, "seed": seed, "key": run.key} for seed, steps, run in finished]
out.table(pd.DataFrame(named), "runs")
names = kit.get_task(setting.task).label_names
train, _ = kit.load_data(planned[0][2].data, setting.backbone)
tasks = {
    seed: [names[train.labels[part[0]]] for part in kit.split_indices(spec, train)]
    for seed, steps, spec in planned
    if steps == at[0]
}
results = preliminary.frame(finished, tasks)
factors = results.groupby(["axis", "reference", "factor"], sort=False)[["direction", "magnitude"]].mean()
out.table(factors.reset_index(), "variation", digits=4)

# %% [markdown]
# ## The figure
#
# By task, by layer and over the steps, at axis rank and against the first point: mean ± standard deviation over seeds.

# %%
out.figure(
    preliminary.figure(results),
    caption="Variation of direction (above) and magnitude (below) of A and B by task, layer and step: mean and "
    "standard deviation over seeds.",
)

# %% [markdown]
# ## How much depends on the definition
#
# Both ratios for every axis and reference point, mean over seeds.

# %%
found = preliminary.ratios(results)
table = found.groupby(["cell", "axis", "reference"], sort=False)["ratio"].agg(["mean", "std"]).reset_index()
out.table(table, "ratios")

# %% [markdown]
# ## Beside the paper

# %%
reported = kit.published("fedlora-optimizer", "preliminary")
default = found[(found["axis"] == preliminary.AXIS) & (found["reference"] == preliminary.REFERENCE)]
out.comparison(kit.compare(default, reported, ["cell"], "ratio", "ratio", comparable=False))

# %% [markdown]
# ## The claims, judged

# %%
out.claims(kit.judge_all(preliminary.claims(), results))

# %% [markdown]
# ## Where this departs from the paper

# %%
out.note(preliminary.deviations(setting, at))
