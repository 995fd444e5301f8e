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
# # Fed-HeLLo: four geometries of layers
#
# **What the paper proposes.** A client that can train 6 of 12 layers needs to be told which. GD-HLA gives every group
# of clients a fixed list, in the shape of a triangle, an inverted triangle, a bottleneck, or evenly spread. RGD-HLA
# keeps the shape as probabilities, and each client draws its layers anew in each round. (Zhang, Liu, Xu, Hu, IEEE
# TNNLS 2025. Nothing is trained in this notebook.)

# %% tags=["parameters"]
profile: str = "smoke"  # smoke | laptop | small | paper
seeds: int | None = None  # number of reported seeds, from 0; none: the profile's own
device: str = "auto"  # auto | cpu | cuda; nothing is trained, so it changes nothing
output_dir: str = "figures"  # where the results go, relative to the repository
draws: int | None = None  # draws for each group and seed

# %%
from fedlora_kit import notebook as kit
from fedlora_kit.methods.allocation import draw_layers, pattern_layers, pattern_probabilities
from fedlora_kit.papers.fed_hello import patterns
from fedlora_kit.randomness import Streams

out = kit.begin("fed-hello/patterns", profile, output_dir)
setting = patterns.setting(profile, seeds, draws)
setting

# %% [markdown]
# ## The idea, in a few lines
#
# The lists of the three groups, and from them the probabilities: in how many of the lists a layer stands, over the
# length of all three. That gives the bottleneck's released probabilities exactly (as 27ths).

# %%
for count in setting.counts:
    print(f"{count:2d} layers:", pattern_layers("bottleneck", count, setting.depth))
probabilities = pattern_probabilities("bottleneck", setting.counts, setting.depth)
print((27 * probabilities).round(6).astype(int))

# %% [markdown]
# A client's draw, in three rounds. The layers are drawn one after the other *without replacement*.

# %%
for draw in range(3):
    print(draw_layers(probabilities, 6, Streams(0).generator("allocation", draw, 6)))

# %% [markdown]
# So a layer of probability 3/27 is in a draw of six in far less than 6/9 of the rounds, and one of 1/27 in far more
# than 6/27: without replacement, the differences even out. How far is found by drawing.

# %%
rates = patterns.rates(setting)
out.table(rates, "rates", digits=3)
uneven = patterns.spread(rates).groupby(["pattern", "layers_of_client", "strategy"], sort=False)["unevenness"]
out.table(uneven.mean().unstack("strategy").reset_index(), "unevenness", digits=3)

# %% [markdown]
# ## The figure
#
# Left the fixed lists, right how often a layer is trained when it is drawn.

# %%
out.figure(
    patterns.figure(rates),
    caption="Share of rounds in which each layer trains, by client group (rows), for the four geometric patterns, "
    "fixed (left) and randomised (right).",
)

# %% [markdown]
# ## Beside the paper
#
# The paper's figure is not known; the rates below are ours.

# %%
reported = kit.published("fed-hello", "patterns")
by = ["strategy", "pattern", "layers_of_client", "layer"]
out.comparison(kit.compare(rates, reported, by, "share of rounds", "rate", comparable=False))

# %% [markdown]
# ## The claims, judged

# %%
out.claims(kit.judge_all(patterns.claims(), rates))

# %% [markdown]
# ## Where this departs from the paper

# %%
out.note(list(patterns.DEVIATIONS))
