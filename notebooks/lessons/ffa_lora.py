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
# # FFA-LoRA: freeze A, and three discordances are gone
#
# Ten minutes of reading, about half a minute of running, no network and no GPU. The lesson `lora_and_fedavg` comes
# before this one.
#
# FFA-LoRA (Sun, Li, Li, Ding, ICLR 2024) changes one thing: the random start $A_0$ is **frozen for ever**, the same
# at every client, and only $B$ is trained, sent and averaged. It is a method of one line in this kit. The paper
# gives three reasons, three places where LoRA and federated or private training do not go together, which it calls
# discordances. One section, one picture each.

# %% tags=["parameters"]
profile: str = "smoke"  # smoke | laptop | small | paper; this lesson is the same in all of them
seeds: int = 3  # number of seeds, from 0 (at least 2 for the claims)
device: str = "auto"  # auto | cpu | cuda
output_dir: str = "figures"  # where table, figure and claims go, relative to the repository

# %%
import inspect

import matplotlib.pyplot as plt
import torch

from fedlora_kit import notebook as kit
from fedlora_kit.experiments.placing import tiny_device
from fedlora_kit.experiments.setup import build
from fedlora_kit.looks import FAINT, SINGLE, of_method
from fedlora_kit.methods import FFALoRA
from fedlora_kit.papers.ffa_lora import alpha as theorem1
from fedlora_kit.papers.ffa_lora import figure1
from fedlora_kit.papers.lessons import ffa_lora as lesson
from fedlora_kit.papers.lessons.lora_and_fedavg import mean_gap
from fedlora_kit.papers.lessons.small import OWN, digits_run, rounds_frame
from fedlora_kit.reporting.style import mean_band
from fedlora_kit.training.rounds import run_federation

out = kit.begin("lessons/ffa_lora", profile, output_dir)
place = tiny_device(device)

# %% [markdown]
# ## The method
#
# $W = W_0 + \frac{\alpha}{r} B A_0$ with $A_0$ of 8 × 64 and $B$ of 64 × 8. All of it in code:

# %%
print(inspect.getsource(FFALoRA.trains))

# %% [markdown]
# The runs of this lesson: LoRA and FFA-LoRA, three clients with unlike labels, 1, 3 or 9 local steps a round, three
# rounds. First what it costs: half the numbers train and travel.

# %%
done = kit.run_cells(lesson.cells(seeds), device=device, label="ffa_lora")
results = kit.results_frame(done)
out.table(results, "results")
results.groupby("method", sort=False)[["trained_parameters", "sent_parameters", "sent_bytes"]].first()

# %% [markdown]
# ## Discordance 1: the average
#
# The server wants the mean of what the clients learned, $\overline{B_k A_k}$, and gets $\bar B \bar A$. With one common
# $A_0$ there is nothing to get wrong: $\overline{B_k} A_0 = \overline{B_k A_0}$.

# %%
gaps = mean_gap(rounds_frame(done))
out.table(gaps, "gaps", digits=6)
fig, axes = plt.subplots(figsize=(SINGLE, 2.3))
for name, rows in gaps.assign(percent=lambda g: 100 * g["gap"]).groupby("method", sort=False):
    mean_band(axes, rows, "local_steps", "percent", of_method(name), mark=True)
axes.set(xlabel="local steps a round", ylabel="error of the average, % of its norm", ylim=(-1, None))
axes.set_xticks(sorted(gaps["local_steps"].unique()))
axes.legend()
out.figure(
    fig,
    caption="Discordance 1: relative error of averaging the factors, by local steps a round, for LoRA and FFA-LoRA; mean "
    f"over {seeds} seeds with its 95 % interval.",
)

# %% [markdown]
# FFA-LoRA's line is zero, up to rounding, and has no band. LoRA's band is wide: seeds draw other splits, and three of them
# say little about how the error grows with the steps.
#
# ## Discordance 2: the noise
#
# Differentially private training adds Gaussian noise ξ to everything that is trained. LoRA trains two factors, and their
# product receives
#
# $$ (B + \xi_B)(A + \xi_A) = BA + \xi_B A + B\,\xi_A + \xi_B\,\xi_A . $$
#
# The first two terms grow with σ, the last one with **σ²**. Take the factors of one trained layer and look:

# %%
fed = build(digits_run("lora"), place)
outcome = run_federation(fed)
module = "vit.layers.3.attention.o_proj"
a, b = (outcome.state[f"{module}.lora_{factor}.weight"] for factor in "AB")  # (8, 64), (64, 8)
print(f"what was learned: ‖B A‖ = {float((b @ a).norm()):.3f}")
lesson.noise_terms(a, b, sigmas=[0.001, 0.01, 0.1, 1.0]).round(4)

# %% [markdown]
# Only the first column is left when $A$ is frozen. For the whole range of σ we draw noises of the same shapes many
# times, and add what full fine-tuning would do to the 64 × 64 weight itself:

# %%
noise = figure1.measure(seeds=10, width=64, rank=8)
mean = noise.groupby(["noise", "sigma"], sort=False)[["norm", "expected"]].mean().reset_index()
fig, axes = plt.subplots(figsize=(SINGLE, 2.5))
for name, label in figure1.NOISES.items():
    rows = mean[mean["noise"] == name]
    look = of_method("full fine-tuning" if name == "full" else name)
    axes.plot(rows["sigma"], rows["expected"], color=look.colour, lw=0.9, ls="--")
    axes.plot(
        rows["sigma"], rows["norm"], color=look.colour, marker=look.marker, ms=3, ls="none", label=label
    )
axes.axvline(8**-0.5, color=FAINT, lw=0.8, ls=":")
axes.annotate("σ = 1/√r", (8**-0.5, mean["norm"].min()), (4, 0), textcoords="offset points", fontsize=7)
axes.set(xscale="log", yscale="log", xlabel="noise scale σ", ylabel="norm of the noise on W")
axes.legend()
out.figure(
    fig,
    "noise",
    caption="Discordance 2: norm of the noise that reaches a 64 × 64 weight over the noise scale, drawn (marks) and by "
    "formula (dashes), for full fine-tuning, LoRA's product and FFA-LoRA.",
)

# %% [markdown]
# Marks are drawn, dashes are the root mean squares by formula, with d = 64, r = 8: $d\,\sigma$ for full fine-tuning,
# $d\sqrt r\,\sigma^2$ for the product $\xi_B\,\xi_A$, and $\sigma\sqrt{d r/3}$ for FFA-LoRA's $\xi_B A_0$ (the entries of $A_0$
# are uniform between $\pm 1/\sqrt d$, with variance $1/(3d)$). The product's line is twice as steep: on the left it is nothing
# beside LoRA's other two terms, on the right the largest of all. FFA-LoRA stays below full fine-tuning everywhere, by the
# same factor.
#
# ## Discordance 3: α
#
# LoRA has a knob too many: the scale α and the learning rate η both say how far a step goes, but not in the same way
# for $A$ and $B$. Under FFA-LoRA, which is linear in $B$, they are one knob: multiplying α by c is the same as
# multiplying η by c². On a small problem in float64 (two layers, three clients, 20 rounds):

# %%
one = theorem1.trajectory("ffa-lora", 8.0, seed=0)  # η = 8/α²: (20 rounds, 1,008 weights)
other = theorem1.trajectory("ffa-lora", 64.0, seed=0)
print(f"FFA-LoRA, α = 8 against α = 64:  {float((one - other).norm() / one.norm()):.1e} of the way")
lora = [theorem1.trajectory("lora", alpha, seed=0) for alpha in (8.0, 64.0)]
print(f"LoRA,     α = 8 against α = 64:  {float((lora[0] - lora[1]).norm() / lora[0].norm()):.1e} of the way")

# %% [markdown]
# And where does LoRA go when α grows with η ∝ 1/α²? Then a step moves $A$ less and less, until it stands still. That is
# the paper's Theorem 1: *FFA-LoRA is LoRA with α = ∞*.

# %%
distances = theorem1.measure(lesson.ALPHAS, seeds=max(2, seeds))
last = distances[distances["round"] == distances["round"].max()]
fig, axes = plt.subplots(figsize=(SINGLE, 2.3))
mean_band(axes, last, "alpha", "distance", of_method("lora"), mark=True)
axes.set(xscale="log", yscale="log", xlabel="α, with η = 8/α²", ylabel="LoRA's distance to FFA-LoRA")
out.figure(
    fig,
    "alpha",
    caption="Discordance 3: LoRA's relative distance to FFA-LoRA after 20 rounds over α, with the learning rate 8/α².",
)

# %% [markdown]
# For large α a straight line of slope −2: ten times the α, a hundredth of the distance (relative to the way that FFA-LoRA
# went, after 20 rounds).
#
# ## The claims, judged
#
# By the same code that judges them in the paper's own notebooks.

# %%
out.claims(lesson.judged(gaps, noise, distances))

# %%
out.note(
    [
        OWN,
        "FFA-LoRA is trained with a larger learning rate than LoRA, as in the paper's grids; neither rate is tuned. So "
        "nothing here says which of them is more accurate.",
        "The noise figure leaves out clipping norm, batch size and learning rate, which scale what reaches the weights: "
        "where on the axis a real run stands is another question (notebooks/ffa-lora/figure1.ipynb).",
    ]
)

# %% [markdown]
# ## Exercises
#
# Answer each in a cell of your own first (below the selected cell: press `b`). The solution comes after the question,
# folded: a click on its three dots opens it, and a click on those below it shows what it printed.
#
# **1. Where do they cross?** At which σ does LoRA's product of noises overtake the noise of full fine-tuning, if r = 2
# or r = 32? Derive it, then measure it with `figure1.measure`.

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
for r in (2, 32):
    near = [0.9 * r**-0.5, 1.1 * r**-0.5]
    found = (
        figure1.measure(near, seeds=3, width=64, rank=r).groupby(["sigma", "noise"])["norm"].mean().unstack()
    )
    print(
        f"r = {r}: 1/√r = {r**-0.5:.3f};",
        "product / full:",
        (found["lora"] / found["full"]).round(2).to_dict(),
    )
# d √r σ² = d σ at σ = 1/√r: 0.71 and 0.18. A larger rank makes the product worse at every σ.

# %% [markdown]
# **2. What does freezing cost?** $B A_0$ can only see the 8 directions of the input that are the rows of $A_0$. Which
# share of the input's 64 directions is that, and do the two methods' learned changes have different rank?

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
frozen = run_federation(build(digits_run("ffa-lora"), place))
for name, state in (("lora", outcome.state), ("ffa-lora", frozen.state)):
    a_now, b_now = (state[f"{module}.lora_{factor}.weight"].double() for factor in "AB")
    a_0 = frozen.state[f"{module}.lora_A.weight"].double()  # the start, common to both
    change = b_now @ a_now
    outside = change - change @ torch.linalg.pinv(a_0) @ a_0  # what A_0's rows cannot see
    print(f"{name}: rank {int(torch.linalg.matrix_rank(change))}, outside A0's rows "
          f"{float(outside.norm() / change.norm()):.1%}")  # fmt: skip
# 8 of 64 directions, an eighth, drawn before any data were seen. Both changes have rank 8; LoRA's may turn towards
# directions that A0 does not hold, FFA-LoRA's never. (notebooks/ffa-lora/init_of_a.ipynb asks which A0 is a good one.)

# %% [markdown]
# **3. One knob.** Show with `theorem1.trajectory` that for FFA-LoRA only $\alpha^2\eta$ counts, and for LoRA not. (The
# argument `scale` is $\alpha^2\eta$.)

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
for name in lesson.METHODS:
    same = theorem1.trajectory(name, 8.0, 0, scale=4.0), theorem1.trajectory(name, 16.0, 0, scale=4.0)
    print(f"{name:9s} α = 8 and 16 at the same α²η: {float((same[0] - same[1]).norm() / same[0].norm()):.1e}")
# B's step is η (α/r) G A0ᵀ, and it enters the weight times α/r: together η α²/r². In LoRA A moves as well, by η (α/r) Bᵀ G. At
# the same α²η, B is proportional to 1/α, and so A's step to 1/α²: that is the slope of −2 above.

# %% [markdown]
# ## Where to go on
#
# * `notebooks/lessons/dp_sgd.ipynb`: where σ comes from.
# * `notebooks/ffa-lora/table1.ipynb`: both methods with and without privacy.
# * `notebooks/ffa-lora/figure1.ipynb`, `discordance1.ipynb`, `alpha.ipynb`: the three sections above as items.
