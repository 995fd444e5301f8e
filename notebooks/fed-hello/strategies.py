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
# # Fed-HeLLo: the parts of the method, one by one
#
# **What the paper claims.** Three ways to allocate layers build on each other: fixed geometric lists (GD-HLA), the same
# geometry as probabilities, drawn anew by each client in each round (RGD-HLA), and probabilities from the layers'
# Fisher information after such a warm start (FIM-HLA; together that is Fed-HeLLo). Each should improve on the one
# before. (Zhang, Liu, Xu, Hu, IEEE TNNLS 2025; that the ablation exists is known, its numbers are not.)

# %% tags=["parameters"]
profile: str = "smoke"  # smoke | laptop | small | paper
seeds: int | None = None  # number of reported seeds, from 0; none: the profile's own
device: str = "auto"  # auto | cpu | cuda
output_dir: str = "figures"  # where the results go, relative to the repository
task: str | None = None  # cifar100 or digits; or any other in classes
backbone: str | None = None  # such as facebook/dinov2-small or google/vit-base-patch16-224-in21k
split: str | None = None  # iid, pat_20 or pat_10
patterns: list[str] | None = None  # triangle, inverted_triangle, bottleneck, uniform
clients: int | None = None  # clients there are
cohort: int | None = None  # clients drawn a round
rounds: int | None = None  # federated rounds
lr: float | None = None  # learning rate of the first round, for all methods
train_limit: int | None = None  # at most so many training examples
eval_limit: int | None = None  # at most so many scored examples

# %%
from IPython.display import display

from fedlora_kit import notebook as kit
from fedlora_kit.methods.allocation import importance_levels, importance_probabilities, pattern_layers
from fedlora_kit.papers.fed_hello import strategies
from fedlora_kit.papers.fed_hello.held import held
from fedlora_kit.papers.fed_hello.table2 import WORDS

out = kit.begin("fed-hello/strategies", profile, output_dir)
setting = strategies.setting(
    profile,
    split,
    seeds=seeds,
    task=task,
    backbone=backbone,
    clients=clients,
    cohort=cohort,
    rounds=rounds,
    lr=lr,
    train_limit=train_limit,
    eval_limit=eval_limit,
)
shapes = strategies.chosen_patterns(patterns)
setting

# %% [markdown]
# ## The idea, in a few lines
#
# What a client of the weakest group trains in a model of 12 layers, if the lists are fixed:

# %%
for name in shapes:
    print(f"{name:18s}", pattern_layers(name, 6, 12))

# %% [markdown]
# And by Fisher information: the layers' scores are clustered into three levels, and a layer of a higher level is drawn
# with a higher probability, 1 : 2 : 3.

# %%
scores = [0.1, 0.2, 4.0, 9.0]
print(importance_levels(scores, 3), importance_probabilities(scores, 3).round(3))

# %% [markdown]
# ## Who holds what

# %%
kind = kit.get_task(setting.task)
split = setting.splits[0]
display(kit.partition_figure(held(setting, split), kind.label_names, WORDS[split]))

# %% [markdown]
# ## The runs

# %%
done = kit.run_cells(strategies.cells(setting, shapes), device=device, label="runs")
results = kit.results_frame(done)
out.table(results, "results")

# %% [markdown]
# ## The table
#
# Best test accuracy over all rounds in %, mean ± standard deviation over seeds; then the mean of the last ten rounds.

# %%
table = kit.mean_std_table(results, rows=["pattern"], column="strategy", value="accuracy_best")
out.table(table.rename(columns=strategies.WORDS))

# %%
late = kit.mean_std_table(results, rows=["pattern"], column="strategy", value="accuracy_last10")
out.table(late.rename(columns=strategies.WORDS), "accuracy_last10")

# %% [markdown]
# What Fisher information finds: the layers' scores of Fed-HeLLo's runs at their last refresh, relative to the largest.

# %%
out.table(strategies.last_scores(done), "layer_scores")

# %% [markdown]
# ## Beside the paper
#
# No number of this ablation is known.

# %%
reported = kit.published("fed-hello", "strategies")
by = ["split", "strategy", "pattern"]
out.comparison(kit.compare(results, reported, by, "best test accuracy %", "accuracy_best", comparable=False))

# %% [markdown]
# ## The claims, judged

# %%
out.claims(kit.judge_all(strategies.claims(), results))

# %% [markdown]
# ## Where this departs from the paper

# %%
out.note(strategies.deviations(setting))
