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
# # FFA-LoRA, Figure 1: noise times noise
#
# **What the paper claims.** Differentially private training (DP-SGD) adds Gaussian noise to every matrix that
# is trained. LoRA trains *two* matrices whose **product** enters the weight, so two noises are multiplied:
#
# $$ (B + \xi_B)(A + \xi_A) = BA + \xi_B A + B\,\xi_A + \xi_B\,\xi_A . $$
#
# The last term grows with the *square* of the noise scale σ. At realistic σ it is larger than the noise that
# full fine-tuning would have put on the whole weight. FFA-LoRA freezes $A = A_0$, so that only $\xi_B A_0$ is
# left. (Sun, Li, Li, Ding, ICLR 2024, section 3, "discordance 2". Known: a 1024 × 1024 weight, r = 8, and
# σ = 0.99 as the realistic scale, which is SST-2 at ε = 6. The figure's axes are not known.)
#
# This is a figure without training: it runs at the paper's own size in every profile.

# %% tags=["parameters"]
profile: str = "smoke"  # smoke | laptop | small | paper: the size is the paper's in each
seeds: int = 5  # draws of the noise at each scale (at least 2 for the claims)
device: str = "auto"  # not used: a few matrix products on the CPU
output_dir: str = "figures"  # where the figure goes, relative to the repository

# %%
import math

import matplotlib.pyplot as plt
import torch

from fedlora_kit import notebook as kit
from fedlora_kit.looks import FAINT, GREY, SINGLE, of_method
from fedlora_kit.papers.ffa_lora import figure1
from fedlora_kit.privacy import noise_multiplier

out = kit.begin("ffa-lora/figure1", profile, output_dir)

# %% [markdown]
# ## The idea in a few lines
#
# Take a 1024 × 1024 weight and rank 8. Draw the noises at σ = 0.99 and measure them by the Frobenius norm (the
# square root of the sum of squared entries).

# %%
d, r, sigma = figure1.WIDTH, figure1.RANK, figure1.REALISTIC_SIGMA
rng = torch.Generator().manual_seed(0)
xi_w = sigma * torch.randn(d, d, generator=rng)  # (1024, 1024) full fine-tuning: noise on the weight itself
xi_b = sigma * torch.randn(d, r, generator=rng)  # (1024, 8)
xi_a = sigma * torch.randn(r, d, generator=rng)  # (8, 1024)
a0 = figure1.kaiming_a(r, d, rng)  # (8, 1024) A as LoRA starts it, uniform on ±1/32

for name, noise in {
    "full: xi_W": xi_w,
    "LoRA: xi_B xi_A": xi_b @ xi_a,
    "FFA-LoRA: xi_B A0": xi_b @ a0,
}.items():
    print(f"{name:20s} {torch.linalg.matrix_norm(noise):8.1f}")

# %% [markdown]
# Why these numbers? An entry of $\xi_B\xi_A$ is a sum of r products of two Gaussians, of variance $r\sigma^4$; there are
# $d^2$ entries, so the norm is about $d\sqrt{r}\,\sigma^2$. Full fine-tuning gives $d\,\sigma$. The two cross at
# $\sigma = 1/\sqrt r$:

# %%
print(f"product        {d * math.sqrt(r) * sigma**2:8.1f}")
print(f"full           {d * sigma:8.1f}")
print(f"FFA-LoRA       {sigma * math.sqrt(d * r / 3):8.1f}   (|A0|² ≈ r/3 for Kaiming's uniform start)")
print(f"crossing at σ = {1 / math.sqrt(r):.3f}")

# %% [markdown]
# Is σ = 0.99 really what SST-2 at ε = 6 needs? The accountant says so, with the sampling rate of one client,
# q = 200 / (67,349 / 3), and 1000 rounds of 10 steps:

# %%
sst2_sigma = noise_multiplier(epsilon=6.0, delta=1e-5, sample_rate=200 / (67_349 / 3), steps=10_000)
print(f"σ = {sst2_sigma:.3f}")

# %% [markdown]
# ## The measurement

# %%
measured = figure1.measure(seeds=seeds)
summary = (
    measured.groupby(["noise", "sigma"], sort=False)
    .agg(norm=("norm", "mean"), sd=("norm", "std"), expected=("expected", "first"))
    .reset_index()
)
out.table(summary)

# %%
fig, axes = plt.subplots(figsize=(SINGLE, 2.6))
names = {"full": "full fine-tuning", "lora": "lora", "ffa-lora": "ffa-lora"}
for noise, label in figure1.NOISES.items():
    rows = summary[summary["noise"] == noise]
    colour = of_method(names[noise]).colour
    axes.plot(rows["sigma"], rows["expected"], color=colour, lw=1.0, ls="--")
    axes.plot(
        rows["sigma"],
        rows["norm"],
        color=colour,
        marker=of_method(names[noise]).marker,
        ms=3,
        ls="none",
        label=label,
    )
axes.axvline(figure1.REALISTIC_SIGMA, color=FAINT, lw=0.9, ls=":")
axes.annotate(
    "σ = 0.99\nSST-2, ε = 6",
    (figure1.REALISTIC_SIGMA, summary["norm"].min()),
    xytext=(6, 2),
    textcoords="offset points",
    fontsize=6.5,
    color=GREY,
)
axes.set(xscale="log", yscale="log", xlabel="noise scale σ", ylabel="Frobenius norm of the noise on W")
axes.set_title(f"{d} × {d} weight, r = {r}")
axes.legend()
out.figure(
    fig,
    caption="Frobenius norm of the noise that reaches the weight, by noise scale: full fine-tuning, LoRA and FFA-LoRA; "
    "measured (markers) and expected (dashes). Dotted: the noise of SST-2 at ε = 6.",
)

# %% [markdown]
# LoRA's line is twice as steep: left of the crossing the product is harmless, right of it it dominates.
#
# ## Beside the paper
#
# Of this figure only the marked scale is published as a number, so that is what can be compared.

# %%
reported = kit.published("ffa-lora", "table1")
reported = reported[reported["metric"] == "noise multiplier"]
ours = measured.head(1).assign(eps="6", task="sst2", sigma=sst2_sigma)
out.comparison(kit.compare(ours, reported, ["eps", "task"], "noise multiplier", "sigma"))

# %%
out.claims(kit.judge_all(figure1.claims(), measured))

# %%
out.note(
    [
        "The figure's axes are not known; this kit sweeps σ over two decades about the crossing point.",
        "A0 is drawn as PEFT draws it (Kaiming uniform, a = √5); the paper says random (Kaiming).",
        "σ is the standard deviation of each noise entry. In DP-SGD it multiplies the clipping norm, and the "
        "learning rate over the batch size scales what reaches the weights; the figure, like the paper's mark at "
        "0.99, leaves that factor out. With it, a single step lies far left of the crossing.",
        "The cross terms ξ_B A and B ξ_A are left out: the figure compares the product of the noises.",
        "The scaling α/r is left out of all three noises: it multiplies LoRA's and FFA-LoRA's alike (α = r here).",
    ]
)
