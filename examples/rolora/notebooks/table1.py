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
# # RoLoRA: LoRA, FFA-LoRA and RoLoRA as the clients become more
#
# **What the paper claims.** LoRA's server averages $A$ and $B$ apart, which is not the average of their products. FFA-LoRA
# freezes $A$: exact, but only $B$ is learned. **RoLoRA trains $B$ in one round and $A$ in the next**: while one moves, the
# other is the same at all clients, so that each average is exact, both are learned, and half as much is sent. It should
# hold up better than both as the clients become more and each holds less. (Chen, Ju, Dalal, Zhu, Khisti,
# arXiv 2409.02346; of its numbers eight are known here, at 3 clients, and none of RoLoRA itself.)

# %% tags=["parameters"]
profile: str = "smoke"  # smoke | laptop | small | paper
seeds: int | None = None  # number of reported seeds, from 0; none: the profile's own
device: str = "auto"  # auto | cpu | cuda
output_dir: str = "figures"  # where the results go, relative to the repository
tasks: list[str] | None = None  # such as sst2, qnli, mnli, qqp or polarity, or one of your own
methods: list[str] | None = None  # lora, ffa-lora, rolora, or any other registered one
clients: list[int] | None = None  # numbers of clients, ascending
backbone: str | None = None  # such as FacebookAI/roberta-large
rounds: int | None = None  # federated rounds
steps: int | None = None  # local steps a round
batch_size: int | None = None  # examples a step at each client
lr: float | None = None  # AdamW's learning rate, for all methods
train_limit: int | None = None  # at most so many training examples
eval_limit: int | None = None  # at most so many scored examples

# %%
import torch

from fedlora_kit import notebook as kit

kit.use("..")  # this paper's folder: what `--with` names on the command line
from rolora import table1

out = kit.begin("rolora/table1", profile, output_dir)
setting = table1.setting(
    profile,
    seeds=seeds,
    tasks=tasks,
    methods=methods,
    clients=clients,
    backbone=backbone,
    rounds=rounds,
    steps=steps,
    batch_size=batch_size,
    lr=lr,
    train_limit=train_limit,
    eval_limit=eval_limit,
)
setting

# %% [markdown]
# ## The idea, in numbers
#
# Three clients, one module: $A$ is $2 \times 5$, $B$ is $3 \times 2$. Where both have moved, the product of the averages is not
# the average of the products; where $A$ is common, it is.

# %%
drawn = torch.Generator().manual_seed(0)
a = torch.randn(3, 2, 5, generator=drawn)  # (client, r, in)
b = torch.randn(3, 3, 2, generator=drawn)  # (client, out, r)
common = a[:1].expand_as(a)
for name, theirs in (("both moved", a), ("B alone moved", common)):
    error = (b.mean(0) @ theirs.mean(0) - (b @ theirs).mean(0)).norm() / (b @ theirs).mean(0).norm()
    print(f"{name}: relative error of the average {float(error):.1e}")

# %% [markdown]
# Which factor a round trains is the whole method (`method.py`). In code and records rounds count from 0, so that the rounds
# with an even index train $B$.

# %%
from rolora.method import RoLoRA

for index in range(4):
    names = ("q_proj.lora_A.weight", "q_proj.lora_B.weight")
    print(f"round {index + 1}:", *(name for name in names if RoLoRA().trains(name, 0, index)))

# %% [markdown]
# ## The runs

# %%
done = kit.run_cells(table1.cells(setting), device=device, label="table 1")
results = kit.results_frame(done)
out.table(results, "results")

# %% [markdown]
# ## The table
#
# Accuracy in % on the scored split after the last round, mean ± standard deviation over seeds.

# %%
out.table(kit.mean_std_table(results, rows=["clients", "method"], column="task"))

# %% [markdown]
# ## Beside the paper

# %%
reported = kit.published("rolora", "table1")
same = setting == table1.PROFILES["paper"]
by = ["clients", "method", "task"]
out.comparison(kit.compare(results, reported, by, "accuracy %", "accuracy", comparable=same))

# %% [markdown]
# ## The claims, judged

# %%
out.claims(kit.judge_all(table1.claims(setting), results))

# %% [markdown]
# ## Where this departs from the paper

# %%
out.note(table1.deviations(setting))
