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
# # Fed-HeLLo, resources 6:3:1: few strong clients
#
# **What the paper claims.** The comparison of Table II again, where 60 % of the clients can train 6 of 12 layers,
# 30 % can train 9, and 10 % all. Now Exclusive has one client in ten to learn from. (Zhang, Liu, Xu, Hu, IEEE TNNLS
# 2025. That the paper has this configuration is known from a summary; none of its numbers is.)

# %% tags=["parameters"]
profile: str = "smoke"  # smoke | small | paper
seeds: int | None = None  # number of reported seeds, from 0; none: the profile's own
device: str = "auto"  # auto | cpu | cuda
output_dir: str = "figures"  # where the results go, relative to the repository
task: str | None = None  # cifar100, cifar100_rest or digits
backbone: str | None = None  # such as kit/image-mirror or google/vit-base-patch16-224-in21k
methods: list[str] | None = None  # straggler, exclusive, fedra, hetlora, flexlora, fed-hello, lora
splits: list[str] | None = None  # iid, pat_20, pat_10
clients: int | None = None  # clients there are
cohort: int | None = None  # clients drawn a round
rounds: int | None = None  # federated rounds
lr: float | None = None  # learning rate of round 0, for all methods
mode: str | None = None  # as_described (default) or as_released: every defect of the released code on
precision: str | None = None  # fp32 or bf16 (bf16 is slow on most CPUs)
train_limit: int | None = None  # at most so many training examples
eval_limit: int | None = None  # at most so many scored examples

# %%
from IPython.display import display

from fedlora_kit.data import get_task
from fedlora_kit.papers.fed_hello import grid, table2
from fedlora_kit.papers.fed_hello.held import held
from fedlora_kit.partition import partition_figure
from fedlora_kit.reporting.comparison import compare
from fedlora_kit.reporting.outputs import ItemOutputs
from fedlora_kit.reporting.style import set_style
from fedlora_kit.study.claims import judge_all
from fedlora_kit.study.grid import mean_std_table, results_frame, run_cells
from fedlora_kit.study.reported import published

set_style()
out = ItemOutputs("fed-hello/table2_roc631", profile, output_dir)
roc = "6:3:1"
setting = grid.setting(
    "fed-hello/table2_roc631",
    table2.PROFILES,
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
# ## Who holds what
#
# The splits at seed 0: one row a client, one column a class.

# %%
kind = get_task(setting.task)
for split in setting.splits:
    display(partition_figure(held(setting, split), kind.label_names, table2.WORDS[split]))

# %% [markdown]
# ## Who can afford what
#
# Each method gets the same groups of clients. Straggler, Exclusive, FedRA and Fed-HeLLo share out *layers*, HETLoRA
# and FlexLoRA *ranks*. What a client sends is averaged, layer by layer, over those that trained the layer.

# %%
for method in setting.methods:
    print(f"{method:10s}", grid.method_settings(setting, method, roc))

# %% [markdown]
# ## The runs

# %%
done = run_cells(grid.cells(setting, roc), device=device, label="runs")
results = results_frame(done, grid.COLUMNS)
out.table(results, "results")

# %% [markdown]
# ## The table
#
# Best test accuracy over all rounds in %, as the paper reports it: mean ± standard deviation over seeds.

# %%
best = mean_std_table(results, rows=["method"], column="split", value="accuracy_best")
out.table(best)

# %% [markdown]
# The best of many evaluations on the test part is optimistic. The last round, and the mean of the last ten:

# %%
for value in ("accuracy", "accuracy_last10"):
    display(out.table(mean_std_table(results, rows=["method"], column="split", value=value), value))

# %% [markdown]
# ## Beside the paper
#
# No number of this configuration is known; the file is written all the same.

# %%
reported = published("fed-hello", "table2_roc631")
by = ["roc", "split", "method"]
out.comparison(compare(results, reported, by, "best test accuracy %", "accuracy_best", comparable=False))

# %% [markdown]
# ## The claims, judged

# %%
out.claims(judge_all(table2.claims(roc), results))

# %% [markdown]
# ## Where this departs from the paper

# %%
out.note(table2.deviations(setting, table2.OWN_631))
