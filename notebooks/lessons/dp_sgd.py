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
# # DP-SGD for adapters, and ε over the rounds
#
# Ten minutes of reading, about half a minute of running, no network and no GPU.
#
# A client that sends an adapter sends something that depends on each of its examples. **Differential privacy** limits
# how much: whether or not any single example was there, whatever can be seen has nearly the same probability, up to a
# factor $e^{\varepsilon}$ and a remainder δ. **DP-SGD** (Abadi et al., 2016) gets there in three changes of a training
# step:
#
# 1. take the gradient of **each example**,
# 2. **clip** each to a length of at most C,
# 3. add **noise** of standard deviation σC to their sum.
#
# Then an **accountant** says what ε many such steps come to. One section each.

# %% tags=["parameters"]
profile: str = "smoke"  # smoke | laptop | small | paper; this lesson is the same in all of them
seeds: int = 3  # number of seeds, from 0 (at least 2 for the claims)
device: str = "auto"  # auto | cpu | cuda
output_dir: str = "figures"  # where table, figure and claims go, relative to the repository

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from fedlora_kit import notebook as kit
from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.experiments.placing import tiny_device
from fedlora_kit.experiments.setup import build
from fedlora_kit.looks import GREY, SERIES, SINGLE, ramp
from fedlora_kit.papers.lessons import dp_sgd as lesson
from fedlora_kit.papers.lessons.small import OWN, digits_run
from fedlora_kit.privacy import PerExampleGradients, epsilon_of, noise_multiplier
from fedlora_kit.privacy.stacked import clipped_sums
from fedlora_kit.training.objective import example_losses

out = kit.begin("lessons/dp_sgd", profile, output_dir)
place = tiny_device(device)

# %% [markdown]
# ## 1. One gradient an example
#
# PyTorch gives the gradient of the *sum* of the losses, and a sum no longer tells who contributed what. Hooks on the
# modules that train (Opacus') keep the parts: beside the gradient of $B$, 64 × 8, there is then one of shape b × 64 × 8, b
# the number of examples. For an adapter that is cheap: all 16 matrices $B$ together have 8,192 entries, where the
# frozen weights have some 140,000. We train $B$ only, as FFA-LoRA does.

# %%
fed = build(digits_run("ffa-lora"), place)
slot = AdapterSlot(fed.model)
slot.set_trainable(name for name in slot.names if ".lora_B" in name)
inputs, labels = fed.clients[0].batch(np.arange(200), place)  # 200 examples of client 0
with PerExampleGradients(fed.model):
    example_losses(fed.model(**inputs).logits, labels).sum().backward()
    gradients = {name: slot.parameters[name].grad_sample.detach().clone() for name in slot.trainable}
name, first = next(iter(gradients.items()))
rows = torch.cat([g.flatten(1) for g in gradients.values()], dim=1)  # one example a row
print(name, tuple(first.shape))
print("all modules side by side:", tuple(rows.shape))

# %%
slot.set_trainable(slot.trainable)  # forgets all gradients
example_losses(fed.model(**inputs).logits, labels).sum().backward()
usual = torch.cat([slot.parameters[n].grad.flatten() for n in slot.trainable])
print("the rows add up to the usual gradient:", torch.allclose(rows.sum(0), usual, atol=1e-4))

# %% [markdown]
# ## 2. Clipping
#
# Some examples shout louder than others. Rows that are longer than C are shortened to C, measured over all modules
# together; shorter ones stay as they are. From then on **no example can move the sum by more than C**, whatever is in
# it. That is all that privacy needs of clipping.

# %%
norms = rows.norm(dim=1).cpu()
clip = lesson.CLIP
fig, axes = plt.subplots(figsize=(SINGLE, 2.1))
axes.hist(norms.numpy(), bins=30, color=SERIES[0], alpha=0.85)
axes.margins(y=0.2)
for at, said in ((clip, f"C = {clip:g}"), (float(norms.median()), "the median")):
    axes.axvline(at, color=SERIES[1], lw=1.3)
    axes.annotate(
        said, (at, axes.get_ylim()[1]), (4, -9), textcoords="offset points", color=SERIES[1], fontsize=7
    )
axes.set(xlabel="length of an example's gradient (all 16 matrices B)", ylabel="examples", xlim=(0, None))
out.figure(
    fig, "norms", caption="Histogram of the lengths of 200 examples' gradients, with C and the median."
)

# %%
owners = torch.zeros(len(rows), dtype=torch.int64, device=place)  # all rows belong to client 0
total = clipped_sums(rows, owners, torch.tensor([clip], device=place), 1)[0]
rest = clipped_sums(rows[1:], owners[1:], torch.tensor([clip], device=place), 1)[0]
print(f"the clipped sum with and without example 0: {float((total - rest).norm()):.4f} apart, C = {clip:g}")
lesson.clipping(rows, clips=[1.0, 5.0, float(norms.median()), 40.0]).round(3)

# %% [markdown]
# Which C? A small one cuts everybody to the same length: all examples have the same say, and C acts like a learning
# rate. A large one lets the gradient through as it is, but the noise is σC, so it grows, too. The clipped sum still points
# nearly where the gradient does (the cosine). Abadi et al. suggest the median; the runs below take C = 1.
#
# ## 3. Noise
#
# Now every entry of the sum gets Gaussian noise of standard deviation σC. The noise has 8,192 entries, so its length is
# about $\sigma C \sqrt{8192} \approx 90\,\sigma C$, and one example's is at most C: hidden, by far. But the signal has to
# survive. It grows with the number of examples in the sum; the noise does not.

# %%
clipped = rows * (clip / norms.to(place)).clamp(max=1.0)[:, None]
lesson.agreement(clipped, sizes=[8, 32, 100, 200], sigma=1.0, clip=clip).round(3)

# %% [markdown]
# The cosine is between the clipped sum and what is left of it after the noise: 1 is undisturbed, 0 is pure noise. Private
# training wants **large batches** and **few trained numbers**, and an adapter is few numbers. What looks hopeless in one
# step is not: over the steps the signal adds up, the noise partly cancels.
#
# ## 4. The accountant
#
# What does one step cost? That depends on σ, and on how probable it is that an example takes part at all: the
# **sampling rate** $q = B/n_k$, batch over the examples of the client. Each step draws a *Poisson sample*, every example
# with probability q by itself. Steps **compose**: T steps cost more than one, but less than T times as much.
#
# Here: $n_k$ = 232 examples, B = 32, 5 steps a round, δ = 10⁻⁵.

# %%
q = 32 / 232
each = epsilon_of(1.0, 1e-5, q, steps=5)
print(f"one round:              ε = {each:.2f}")
print(f"40 rounds, composed:    ε = {epsilon_of(1.0, 1e-5, q, steps=200):.2f}")
print(f"40 rounds, added up:    ε = {40 * each:.2f}   true, but needlessly large (and δ adds up, too)")
print(f"without sampling, q = 1: ε = {epsilon_of(1.0, 1e-5, 1.0, steps=200):.2f}   every step sees everybody")

# %%
curve = lesson.epsilon_curve(
    sigmas := (0.7, 1.0, 1.5, 2.5, 5.0), lesson.log_spaced(1, 1000, 16), steps=lesson.STEPS, rate=q
)
out.table(curve, "curve")
fig, axes = plt.subplots(figsize=(SINGLE, 2.7))
for sigma, shade in zip(sigmas, ramp(len(sigmas)), strict=True):
    line = curve[curve["sigma"] == f"{sigma:g}"]
    axes.plot(line["rounds"], line["epsilon"], color=shade)
    end = line.iloc[-1]
    axes.annotate(
        f"σ = {sigma:g}", (end["rounds"], end["epsilon"]), (3, -2), textcoords="offset points", fontsize=7
    )
axes.axhspan(1, 8, color=SERIES[2], alpha=0.12, lw=0)
axes.annotate("ε from 1 to 8", (60, 1.15), fontsize=7, color=GREY)
axes.set(
    xscale="log", yscale="log", xlabel="rounds of 5 steps", ylabel="ε spent, at δ = 10⁻⁵", xlim=(0.8, 5000)
)
out.figure(
    fig,
    caption="Spent ε over rounds of 5 steps for five noise multipliers σ, at sampling rate 32/232 and δ = 1e-5, by the RDP "
    "accountant.",
)

# %% [markdown]
# The band is what papers on private training usually promise. Read it both ways. From left to right: a budget is spent, and there is no round for free. From top to bottom: for a
# given number of rounds, which σ keeps to the ε that was promised? The latter is what a run does before it starts:

# %%
needed = {rounds: noise_multiplier(8.0, 1e-5, q, steps=rounds * lesson.STEPS) for rounds in (3, 30, 300)}
print({f"{rounds} rounds": f"σ = {sigma:.2f}" for rounds, sigma in needed.items()})

# %% [markdown]
# A mistake that is easily made: an accountant that is created anew in every round reports the ε of *one* round for
# ever. The kit keeps one ledger a client for the whole run, and reports the largest ε of any client.
#
# ## 5. Private runs
#
# LoRA and FFA-LoRA, three clients, three rounds of 5 steps, without DP and at ε = 8. In a run's description that is three
# lines: `"privacy": {"epsilon": 8.0, "delta": 1e-5, "clip": 1.0}`.

# %%
done = kit.run_cells(lesson.cells(seeds), device=device, label="dp_sgd")
results = kit.results_frame(done)
out.table(results, "results")
out.table(kit.mean_std_table(results, rows=["method"], column="eps"))

# %%
out.privacy(kit.privacy_frame(done, by=["eps", "method"]))

# %% [markdown]
# The ledger of a run, round by round, against what we get by hand from σ, q and the number of steps:

# %%
ledger = lesson.by_hand(done)
assert np.allclose(ledger["recorded"], ledger["composed"])
ledger.groupby(["method", "round"], sort=False)[["recorded", "composed"]].max().round(3).reset_index()

# %% [markdown]
# Privacy is dear where data are few: 697 examples, 232 a client. It lives on numbers; a client of the paper's SST-2 holds
# 22,450 sentences. That one method loses more than the other is what section "Discordance 2" of the lesson `ffa_lora`
# would lead one to expect, but no proof of it: neither learning rate was chosen for DP.

# %%
out.claims(kit.judge_all(lesson.claims(), results))

# %%
out.note(
    [
        OWN,
        "The unit of privacy is one example of one client, not the client.",
        "The learning rates are those of the runs without DP: a rate chosen for each ε would narrow the gap.",
        "The noise comes from seeded generators, so that a run can be repeated: right for a lesson, not for releasing "
        "an adapter that was trained on secrets.",
    ]
)

# %% [markdown]
# ## Exercises
#
# Answer each in a cell of your own first (below the selected cell: press `b`). The solution comes after the question,
# folded: a click on its three dots opens it, and a click on those below it shows what it printed.
#
# **1. Rounds or steps?** You may choose: 100 rounds of 5 steps or 10 rounds of 50. Which costs more privacy, which
# more traffic?

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
for rounds, steps in ((100, 5), (10, 50)):
    print(f"{rounds} × {steps}: ε = {epsilon_of(1.0, 1e-5, q, rounds * steps):.3f}")
# The same ε: the accountant counts T = rounds × steps, as if the server saw every single step. With 10 rounds it sees only the
# sums of 50, so the promise holds, and may be more cautious than it need be. The traffic is ten times larger with 100 rounds;
# with 10 the clients drift apart instead (lesson lora_and_fedavg).

# %% [markdown]
# **2. Larger batches?** Double B from 32 to 64 at the same 200 steps and the same ε = 8. What does σ become, and
# what does the noise on the *mean* gradient, σC/B?

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
batches = (16, 32, 64, 232)
sigmas_needed = [noise_multiplier(8.0, 1e-5, batch / 232, steps=200) for batch in batches]
print(
    pd.DataFrame(
        {
            "B": batches,
            "q": [batch / 232 for batch in batches],
            "σ": sigmas_needed,
            "σC/B": [sigma * clip / batch for sigma, batch in zip(sigmas_needed, batches, strict=True)],
        }
    ).round(3)
)
# σ has to grow, but by less than B: the noise on the mean falls. Large batches pay, until q = 1 (in noise; each step then also
# costs more computing).

# %% [markdown]
# **3. Who has spent the most?** Clients of 100, 232 and 1,000 examples all train with B = 32 and σ = 1 for 40 rounds of
# 5 steps. Which of them has the largest ε, and why does the run report that one?

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
print({n: round(epsilon_of(1.0, 1e-5, 32 / n, 200), 2) for n in (100, 232, 1000)})
# The smallest client: each of its examples is in every third sample, on average. A promise made to all must hold for the worst
# off. When a target ε is given, the kit takes one σ for all, the one that the smallest client needs: it ends at the target, and
# the larger clients have spent less.

# %% [markdown]
# ## Where to go on
#
# * `notebooks/ffa-lora/table1.ipynb`: what ε costs in accuracy, in the paper's setting.
# * `fedlora noise --epsilon 6 --delta 1e-5 --batch 200 --examples 22450 --steps 10000`: σ on the command line.
# * `fedlora_kit/privacy/`: the step, the ledger and the noise, in files of one page.
