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
# # Fed-HeLLo: accuracy over rounds
#
# **What the paper claims.** Fed-HeLLo does not only end above the other methods, it learns faster: in the official
# logs it reaches 80 % under IID labels after 99 rounds, FedRA after 121, HETLoRA after 128. Here are those logs, and
# below them the same curves of our own runs, which are those of Table II. (Zhang, Liu, Xu, Hu, IEEE TNNLS 2025; the
# paper's own figure is not known.)

# %% tags=["parameters"]
profile: str = "smoke"  # smoke | laptop | small | paper
seeds: int | None = None  # number of reported seeds, from 0; none: the profile's own
device: str = "auto"  # auto | cpu | cuda
output_dir: str = "figures"  # where the results go, relative to the repository
task: str | None = None  # cifar100 or digits; or any other in classes
backbone: str | None = None  # such as facebook/dinov2-small or google/vit-base-patch16-224-in21k
methods: list[str] | None = None  # straggler, exclusive, fedra, hetlora, flexlora, fed-hello, lora
splits: list[str] | None = None  # iid, pat_20, pat_10
clients: int | None = None  # clients there are
cohort: int | None = None  # clients drawn a round
rounds: int | None = None  # federated rounds
lr: float | None = None  # learning rate of the first round, for all methods
mode: str | None = None  # as_described (default) or as_released: every defect of the released code on
precision: str | None = None  # fp32 or bf16 (bf16 is slow on most CPUs)
train_limit: int | None = None  # at most so many training examples
eval_limit: int | None = None  # at most so many scored examples

# %%
from IPython.display import display

from fedlora_kit import notebook as kit
from fedlora_kit.papers.fed_hello import curves, grid

out = kit.begin("fed-hello/curves", profile, output_dir)
setting = grid.setting(
    "fed-hello/curves",
    curves.PROFILES,
    profile,
    seeds=seeds,
    task=task,
    backbone=backbone,
    methods=methods,
    splits=splits,
    clients=clients,
    cohort=cohort,
    rounds=rounds,
    lr=lr,
    mode=mode,
    precision=precision,
    train_limit=train_limit,
    eval_limit=eval_limit,
)
setting

# %% [markdown]
# ## The official logs
#
# One run of 500 rounds for each split and method, seed 1. Of Straggler none was released.

# %%
theirs = curves.official()
theirs.groupby(["split", "method"], sort=False)["accuracy"].agg(["max", "last"])

# %% [markdown]
# ## Our runs
#
# The same descriptions as in Table II, so that what is in the store is not trained again. A run's history holds one
# record a round: the evaluation, and the bytes that the round's clients sent.

# %%
done = kit.run_cells(grid.cells(setting), device=device, label="runs")
part = next(iter(kit.get_task(setting.task).parts.values()))
mine = curves.ours(done, part)
out.table(mine, "curves")

# %% [markdown]
# ## The figure
#
# Mean over seeds; the bars at the right are the 95 % intervals of the means in the last round (three seeds make them
# wide).

# %%
out.figure(
    curves.figure(theirs, mine, f"ours, {setting.task}"),
    caption="Accuracy over rounds by method and split. Above: the authors' official logs on CIFAR-100, one seed. "
    f"Below: our runs on {setting.task}, mean over {len(setting.seeds)} seeds; the bars at the right are its "
    "95 % intervals in the last round.",
)

# %% [markdown]
# ## Rounds and traffic to a level
#
# The first round at which the test accuracy reaches 50, 70 and 80 %; "–": never. "(2 of 3)": so many seeds reach it,
# and the mean is over those. First the official logs.

# %%
display(out.table(curves.reached_table(curves.reached(theirs), "rounds"), "rounds_official"))

# %% [markdown]
# Ours: rounds, and megabytes ($10^6$ bytes) that all clients together had sent by then.

# %%
found = curves.reached(mine)
display(out.table(curves.reached_table(found, "rounds"), "rounds"))
out.table(curves.reached_table(found, "megabytes", digits=2), "megabytes")

# %% [markdown]
# ## Beside the paper
#
# No number of such a figure is known from the paper itself.

# %%
reported = kit.published("fed-hello", "curves")
half = curves.at_half(mine, setting.rounds)
by = ["split", "method"]
out.comparison(kit.compare(half, reported, by, "test accuracy % half way", "accuracy", comparable=False))

# %% [markdown]
# ## The claims, judged
#
# On the last evaluation in the first half of the rounds.

# %%
out.claims(kit.judge_all(curves.early_claims(), half))

# %% [markdown]
# ## Where this departs from the paper

# %%
out.note(curves.deviations(setting))
