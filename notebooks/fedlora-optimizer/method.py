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
# # FedLoRA-Optimizer: the method, step by step
#
# **What the paper proposes.** LoRA's two factors are each split into magnitude and direction. What the clients have in
# common sits in the *direction of A*, what is personal in the *magnitude of B*. So a round is a pipeline: the clients
# train; the four components are averaged apart; a global optimiser trains A's direction; local optimisers train B's
# magnitude, and each client keeps its own. (Zhao, Zhu, Zhang, Chen, Guo, arXiv 2510.11274.)
#
# Of the paper only the abstract and summaries are known. Every choice that they leave open is a setting of the method
# `fedlora-optimizer`, listed at the end. No number in this notebook is the paper's.

# %% tags=["parameters"]
profile: str = "smoke"  # smoke | laptop | small | paper
seeds: int | None = None  # number of reported seeds, from 0; none: the profile's own
device: str = "auto"  # auto | cpu | cuda
output_dir: str = "figures"  # where the results go, relative to the repository
task: str | None = None  # instructions, dolly or natural_instructions; or any other of answers
backbone: str | None = None  # such as kit/instruct-tiny or meta-llama/Llama-2-7b-hf
axis: str = "rank"  # vectors of a factor: rank (one a rank component) or vector (one an input or output)
rounds: int | None = None  # federated rounds
steps: int | None = None  # local steps a round
lr: float | None = None  # learning rate
train_limit: int | None = None  # at most so many training examples
eval_limit: int | None = None  # at most so many scored examples

# %%
import dataclasses

import pandas as pd
import torch
from IPython.display import display

from fedlora_kit import notebook as kit
from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.experiments.placing import device_for
from fedlora_kit.experiments.run import run
from fedlora_kit.experiments.setup import build
from fedlora_kit.methods import ClientUpdate, FedIT, method
from fedlora_kit.models.components import compose, decompose, decomposed, part_of, vector_dim
from fedlora_kit.papers.fedlora_optimizer import method as flo_method
from fedlora_kit.papers.fedlora_optimizer import setting as flo_setting
from fedlora_kit.training.rounds import run_federation

out = kit.begin("fedlora-optimizer/method", profile, output_dir)
setting = flo_setting.setting(
    "fedlora-optimizer/method",
    profile,
    seeds=seeds,
    task=task,
    backbone=backbone,
    rounds=rounds,
    steps=steps,
    lr=lr,
    train_limit=train_limit,
    eval_limit=eval_limit,
)
setting

# %% [markdown]
# ## Step 1: the clients train
#
# One category a client. Two of them train A and B from the same start. We look at one module of the first layer.

# %%
one_round = dataclasses.replace(setting, rounds=1)
spec = flo_setting.spec(one_round, "fedlora-optimizer", 0, axis=axis)
place = device_for(spec, device)
fed = build(spec, place)
start = AdapterSlot(fed.model).read()
module = next(n for n in start if part_of(n) == "A").removesuffix(".lora_A.weight")
names = kit.get_task(setting.task).label_names
for k, data in enumerate(fed.clients):
    held = fed.held_out[k]
    print(f"client {k}: {names[data.labels[0]]}, {len(data)} examples, {len(held) if held else 0} held out")
print("at the server:", len(fed.server) if fed.server else 0, "examples;", "the module:", module)

# %%
after, weights = {}, {}
alone = build(flo_setting.spec(one_round, "local-only", 0), place)
personal = run_federation(alone).personal
for k in (0, 1):
    after[k], weights[k] = {**start, **personal[k]}, len(alone.clients[k])

# %% [markdown]
# ## Step 2: magnitude and direction
#
# $A = A_M \cdot A_D$ and $B = B_M \cdot B_D$: every vector of a factor is its length times a unit vector. A module's
# tensors at client 0, whole and split. With `axis="rank"` the vectors are A's rows and B's columns, one a rank
# component; with `axis="vector"` A's columns and B's rows.

# %%
out.table(flo_method.shapes(after[0], module, axis), "shapes", digits=3)

# %% [markdown]
# Putting them together again gives the factors back bit by bit, zeros included: B started at 0.

# %%
for state in (start, after[0]):
    for name in (f"{module}.lora_A.weight", f"{module}.lora_B.weight"):
        magnitude, direction = decompose(state[name], dim := vector_dim(name, axis))
        print(
            tuple(magnitude.shape),
            tuple(direction.shape),
            torch.equal(compose(magnitude, direction, dim), state[name]),
        )

# %% [markdown]
# ## Step 3: the average, component by component
#
# Federated averaging of the factor itself (FedIT) shortens a vector when clients disagree about its direction. Here
# lengths are averaged as lengths, directions as directions, and the mean direction is brought back to length 1
# (`renormalise`, a setting: the paper's choice is not known).

# %%
updates = [ClientUpdate(k, weights[k], after[k]) for k in after]
averages = {
    "client 0": after[0],
    "client 1": after[1],
    "FedIT": FedIT().aggregate(start, updates),
    "by component": method("fedlora-optimizer", axis=axis).aggregate(start, updates),
    "not re-normalised": method("fedlora-optimizer", axis=axis, renormalise=False).aggregate(start, updates),
}
rows = []
for who, state in averages.items():
    lengths = {
        f: decompose(state[n], vector_dim(n, axis))[0].mean().item()
        for f in "AB"
        for n in [f"{module}.lora_{f}.weight"]
    }
    rows.append({"adapter": who, "mean length in A": lengths["A"], "mean length in B": lengths["B"]})
out.table(pd.DataFrame(rows), "averages", digits=4)

# %% [markdown]
# ## Step 4: the global optimiser trains A's direction
#
# While a stage trains, the factor is parametrised: the model holds $A_M$ and $A_D$ as parameters and composes $A$ in
# the forward pass, so the gradient goes through the normalisation. On leaving the block it is a plain A again.

# %%
slot = AdapterSlot(fed.model)
slot.write(averages["by component"])
with decomposed(fed.model, ["A"], axis):
    inside = AdapterSlot(fed.model)
    for name in [n for n in inside.names if n.startswith(module + ".")]:
        print(part_of(name), tuple(inside.parameters[name].shape), name)

# %% [markdown]
# ## Steps 1 to 5 in the round loop
#
# The method declares its stages; the loop runs them after the aggregation.

# %%
for stage in fed.method.stages(0, last=True):
    print(stage)

# %% [markdown]
# What each stage moved: one round without any stage, with the global optimiser, and with the local ones.

# %%
off = {"global_trains": None, "local_trains": None}
plain = run_federation(
    build(flo_setting.spec(one_round, "fedlora-optimizer", 0, axis=axis, **off), fed.device)
)
fed = build(spec, fed.device)  # anew: the slot above holds an average by now
whole = run_federation(fed)
moved = {"global optimiser": flo_method.step_frame(plain.state, whole.state, axis)}
for k in (0, 1):
    own = fed.method.personalised(whole.state, whole.personal[k])
    moved[f"local optimiser of client {k}"] = flo_method.step_frame(whole.state, own, axis)
changes = pd.concat([frame.assign(stage=stage, seed=0) for stage, frame in moved.items()])
out.table(
    changes.pivot(index="stage", columns="component", values="change").reset_index(), "changes", digits=5
)

# %%
print(pd.DataFrame(whole.history[-1]["stages"])[["name", "steps", "train_loss", "bytes_up"]])
print({n: tuple(t.shape) for n, t in whole.personal[0].items() if n.startswith(module + ".")})

# %% [markdown]
# A client keeps its magnitudes of B and nothing else; they are never sent.
#
# ## The figure
#
# The decomposition with this run's tensors, and the pipeline. What the two optimisers train is framed.

# %%
out.figure(
    flo_method.figure(whole.state, module, axis),
    caption=f"Above: A and B of {module} after a run, as magnitude times direction; framed, what the two optimisers "
    "train. Below: a round of the pipeline.",
)

# %% [markdown]
# ## A run of it
#
# The whole method, and FedIT on the same split: the global adapter on the test part, and each client's own adapter on
# its held-out examples (mean over clients). This shows that both scores are there, *not which method is better*:
# FedLoRA-Optimizer takes more steps a round, and its global optimiser sees the server's examples, which FedIT's
# clients do not have.

# %%
rows = []
for cell in flo_method.cells(setting, axis):
    entry = run(cell.spec, device=device)
    results = entry.results
    metric = kit.get_task(setting.task).metric
    rows.append(
        {
            **cell.coords,
            "seed": cell.seed,
            "key": entry.key,
            f"global {metric}": 100 * results["scores"]["test"][metric]["final"],
            f"local {metric}": 100 * results["local"][metric]["final"],
            "local loss": results["local"]["loss"]["final"],
        }
    )
runs = pd.DataFrame(rows)
display(out.table(runs, "runs"))
runs.drop(columns=["seed", "key"]).groupby("method", sort=False).agg(["mean", "std"]).round(2)

# %% [markdown]
# ## Beside the paper
#
# The paper gives no number here; ours is the largest change of an entry.

# %%
reported = kit.published("fedlora-optimizer", "method")
by = ["stage", "component"]
out.comparison(kit.compare(changes, reported, by, "largest change", "change", comparable=False))

# %% [markdown]
# ## The claims, judged
#
# That the code does what the abstract says: each optimiser moves its own component and no other.

# %%
out.claims(kit.judge_all(flo_method.claims(), changes))

# %% [markdown]
# ## Where this departs from the paper

# %%
out.note([*flo_method.DEVIATIONS, *flo_setting.deviations(setting)])
