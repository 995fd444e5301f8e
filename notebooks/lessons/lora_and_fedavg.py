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
# # LoRA, and what happens when a server averages it
#
# Ten minutes of reading, about half a minute of running, no network and no GPU.
#
# Two things to take home:
#
# 1. LoRA changes a large matrix by a **product of two thin ones**.
# 2. A server that averages the two thin matrices **does not average their product**. The difference is a
#    covariance, and you will see it, compute it, and find the two ways of making it vanish.

# %% tags=["parameters"]
profile: str = "smoke"  # smoke | laptop | small | paper; this lesson is the same in all of them
seeds: int = 4  # number of seeds, from 0 (at least 2 for the claims)
device: str = "auto"  # auto | cpu | cuda
output_dir: str = "figures"  # where table, figure and claims go, relative to the repository

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from fedlora_kit import notebook as kit
from fedlora_kit.adapter import AdapterSlot, count, size_bytes
from fedlora_kit.experiments.placing import tiny_device
from fedlora_kit.experiments.setup import build
from fedlora_kit.looks import SINGLE, Look, ramp
from fedlora_kit.methods import ClientUpdate, FedIT, FFALoRA
from fedlora_kit.methods.aggregation_gap import aggregation_gap
from fedlora_kit.papers.lessons import lora_and_fedavg as lesson
from fedlora_kit.papers.lessons.small import OWN, digits_run, rounds_frame
from fedlora_kit.reporting.style import mean_band
from fedlora_kit.training.objective import example_losses
from fedlora_kit.training.rounds import run_federation

out = kit.begin("lessons/lora_and_fedavg", profile, output_dir)
place = tiny_device(device)

# %% [markdown]
# ## 1. A thin detour beside a frozen matrix
#
# The backbone is a small vision transformer: 4 layers of width 64, pre-trained on upright digits. Our task shows it
# digits turned by a quarter. In each layer the four attention matrices q, k, v, o are frozen, $W_0$ of shape
# d_out × d_in = 64 × 64, and each gets a detour
#
# $$ y = W_0 x + \tfrac{\alpha}{r} B A x, \qquad A \text{ is } r \times d_{in} = 8 \times 64, \quad
#    B \text{ is } d_{out} \times r = 64 \times 8 . $$
#
# So the input of 64 numbers is squeezed through 8 and spread over 64 again. Instead of 64 · 64 = 4,096 numbers,
# 2 · 8 · 64 = 1,024 are trained.

# %%
fed = build(digits_run("local-only", rounds=1), place)
slot = AdapterSlot(fed.model)
start = slot.read()  # the adapter: 16 modules, an A and a B each
module = "vit.layers.0.attention.q_proj"
a, b = start[f"{module}.lora_A.weight"], start[f"{module}.lora_B.weight"]
layer = fed.model.get_submodule(f"base_model.model.{module}")
scale = layer.scaling["default"]  # α / r
print(
    "A",
    tuple(a.shape),
    " B",
    tuple(b.shape),
    " W0",
    tuple(layer.base_layer.weight.shape),
    f" α/r = {scale:g}",
)

drawn = torch.Generator().manual_seed(0)
some_b = torch.randn(b.shape, generator=drawn).to(
    b
)  # B itself is still zero (section 2) and would hide any mistake
x = torch.randn(5, 64, generator=drawn).to(place)  # five inputs
slot.write({**start, f"{module}.lora_B.weight": some_b})
with torch.no_grad():
    detour = scale * x @ a.T @ some_b.T
    apart = layer(x) - (layer.base_layer(x) + detour)
slot.write(start)
print(f"largest entry of the detour: {float(detour.abs().max()):.2f}")
print(f"largest difference to the layer itself: {float(apart.abs().max()):.1e}")

# %% [markdown]
# ## 2. Where it starts
#
# $A$ starts at random, **$B$ at zero**: the first output is exactly that of the backbone. It has a consequence that will
# matter below. The gradient of $A$ contains $B$ as a factor, so at the very first step $A$ does not move at all:

# %%
fed.model.zero_grad()
inputs, labels = fed.clients[0].batch(np.arange(32), place)
example_losses(fed.model(**inputs).logits, labels).mean().backward()
for name in ("lora_A", "lora_B"):
    print(name, "norm of the first gradient:", float(getattr(layer, name)["default"].weight.grad.norm()))

# %% [markdown]
# ## 3. Averaging, with numbers small enough for the head
#
# Two clients, and matrices of 1 × 1. Client 1 learns $a = 2, b = 1$, client 2 learns $a = 0, b = 3$. What the clients
# *do* is $ba$: 2 and 0, on average 1. What FedAvg does is to average $a$ and $b$:

# %%
a_k, b_k = np.array([2.0, 0.0]), np.array([1.0, 3.0])
print("mean of the products   ", (b_k * a_k).mean())
print("product of the means   ", b_k.mean() * a_k.mean())
print("covariance of b and a  ", ((b_k - b_k.mean()) * (a_k - a_k.mean())).mean())

# %% [markdown]
# The server's model does twice what the clients wanted, and the difference is the **covariance** of the factors:
#
# $$ \overline{B_k A_k} \;=\; \bar B \bar A \;+\; \overline{(B_k - \bar B)(A_k - \bar A)} . $$
#
# It vanishes if all $A_k$ are equal, or if all $B_k$ are. Otherwise there is no reason why it should.
#
# ## 4. The same in a real round
#
# Three clients with unlike labels train five steps from the same start. `local-only` lets each keep its own adapter, so
# that we can look at it; `FedIT` is the usual FedAvg of the factors, weighted by the clients' numbers of examples
# $n_k$.

# %%
personal = run_federation(fed).personal  # client -> its A and B of all 16 modules
updates = [ClientUpdate(k, len(fed.clients[k]), own) for k, own in personal.items()]
average = FedIT().aggregate(start, updates)  # every tensor by itself


weights = [len(c) / sum(map(len, fed.clients)) for c in fed.clients]
print("examples of the clients:", [len(c) for c in fed.clients])
print(f"error of the average over all 16 modules: {aggregation_gap(start, average, updates):.1%} of its norm")


# %% [markdown]
# Module by module the error differs. We look at the one where it is largest.


# %%
def product(state, module):
    b, a = (state[f"{module}.lora_{factor}.weight"].double() for factor in "BA")
    return scale * b @ a  # (64, 64)


modules = [name.removesuffix(".lora_A.weight") for name in start if ".lora_A" in name]
wanted = {
    m: sum(w * product(own, m) for w, own in zip(weights, personal.values(), strict=True)) for m in modules
}
got = {m: product(average, m) for m in modules}
errors = pd.Series({m: float((got[m] - wanted[m]).norm() / wanted[m].norm()) for m in modules})
worst = str(errors.idxmax())
print(f"smallest {errors.min():.1%}, median {errors.median():.1%}, largest {errors.max():.1%} in {worst}")

# %%
out.figure(
    lesson.figure(
        {
            "wanted: mean of the products": wanted[worst],
            "got: product of the means": got[worst],
            "got − wanted": got[worst] - wanted[worst],
        },
        "One 64 × 64 change of a weight after one round of three clients",
    ),
    caption="Heat maps of one 64 × 64 change of a weight: the mean of the clients' products, the product of their mean "
    "factors, and the difference.",
)

# %% [markdown]
# Left what the clients meant, in the middle what the server makes of it; the right picture is their difference. No client
# trained it.
#
# ## 5. What makes it grow
#
# Every run of the kit can write down this relative error, round by round (`"rounds": {"measure_gap": true}`). We vary
# the number of local steps a round and how unlike the clients' labels are; one client alone is the control, whose error
# must be rounding. The first of the three rounds is left out of the means: there $B$ comes from zero, and after a single
# step all $A_k$ are still equal.

# %%
done = kit.run_cells(lesson.cells(seeds), device=device, label="lora_and_fedavg")
gaps = lesson.mean_gap(rounds_frame(done))
out.table(gaps, "gaps", digits=4)
out.table(
    gaps.groupby(["split", "local_steps"], sort=False)["gap"].agg(["mean", "min", "max"]).reset_index(),
    digits=4,
)

# %%
fig, axes = plt.subplots(figsize=(SINGLE, 2.4))
for split, colour, marker in zip(lesson.SPLITS, ramp(3)[::2], "os", strict=True):
    rows = gaps[gaps["split"] == split].assign(percent=lambda g: 100 * g["gap"])
    mean_band(axes, rows, "local_steps", "percent", Look(split, colour, marker), mark=True)
axes.set(xlabel="local steps a round", ylabel="error of the average, % of its norm", ylim=(0, None))
axes.set_xticks(lesson.STEPS)
axes.legend()
out.figure(
    fig,
    "steps",
    caption="Relative error of averaging A and B apart, by local steps a round, for clients with alike and with unlike "
    f"labels: mean over {seeds} seeds with its 95 % interval.",
)

# %% [markdown]
# Lines are means over the seeds, bands their 95 % intervals. More local steps and less alike clients let the $A_k$ and $B_k$
# drift further apart, and their covariance grows; so goes the argument. The bands are wide: how much a few seeds can
# prove of it is left to the code below, which calls a claim *reproduced* only if the 95 % interval over the seeds lies
# wholly on its side. "Undecided" is an honest answer, and more seeds (`seeds=10`) are the remedy.

# %%
out.claims(kit.judge_all(lesson.claims(), gaps))

# %%
out.note(
    [
        OWN,
        "The error is that of one aggregation, relative to what was to be averaged; what it costs in accuracy over "
        "many rounds is another question (notebooks/ffa-lora/table1.ipynb).",
    ]
)

# %% [markdown]
# ## Exercises
#
# Answer each in a cell of your own first (below the selected cell: press `b`). The solution comes after the question,
# folded: a click on its three dots opens it, and a click on those below it shows what it printed.
#
# **1. What travels?** How many numbers, and how many bytes, does a client send in a round? Compare with the whole model.

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
everything = sum(p.numel() for p in fed.model.parameters())
print(f"adapter: {count(start):,} numbers, {size_bytes(start):,} bytes")  # 16 modules · 1,024 · 4 bytes
print(f"model with it: {everything:,} numbers; the adapter is {count(start) / everything:.1%} of them")
# In a small model that is not little. Of one matrix it is 2 r d of d² numbers: a quarter at d = 64, 1.6 % at d = 1024.

# %% [markdown]
# **2. Make it vanish.** Let every client send its $B_k$ only, so that all share the $A$ of the start. What is the
# error now? Which method does that?

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
only_b = [
    ClientUpdate(u.client, u.num_examples, {n: t for n, t in u.tensors.items() if ".lora_B" in n})
    for u in updates
]
print("error:", aggregation_gap(start, FFALoRA().aggregate(start, only_b), only_b))
# Zero, up to rounding: mean(B_k) A = mean(B_k A) for a common A. Training in this way from the beginning is FFA-LoRA.

# %% [markdown]
# **3. Average the product itself?** The server could compute $\overline{B_k A_k}$ and send that. What is the rank
# of `wanted[worst]`, and how much of it fits into rank 8?

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
singular = torch.linalg.svdvals(wanted[worst])
print("rank:", int(torch.linalg.matrix_rank(wanted[worst])), "(at most 3 clients · 8 = 24)")
print(f"lost by the best matrix of rank 8: {float(singular[8:].norm() / singular.norm()):.1%}")
print(f"lost by averaging the factors:     {errors[worst]:.1%}")
# Three products of rank 8 add up to rank 24. FlexLoRA cuts the mean back to rank 8 by a singular value decomposition,
# FLoRA sends all 24 directions and merges them into the base: exact, and three times the traffic downwards.

# %% [markdown]
# ## Where to go on
#
# * `notebooks/lessons/ffa_lora.ipynb`: the method that freezes $A$, and its two other reasons.
# * `notebooks/ffa-lora/discordance1.ipynb`: this measurement on a text task, with FFA-LoRA beside it.
# * `fedlora_kit/methods/fedit.py`, `flora.py`, `flexlora.py`: three answers, each shorter than this notebook.
