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
# # Your own method in 30 lines, beside the others
#
# Ten minutes of reading, about a minute of running (less the second time), no network and no GPU.
#
# You have an idea for federated LoRA. What must you write before it stands in a table, on the same splits, cohorts and
# seeds as everybody else's? One class. This lesson writes one, checks it, and puts it into Fed-HeLLo's Table II.

# %% tags=["parameters"]
profile: str = "smoke"  # smoke | laptop | small | paper; this lesson is the same in all of them
seeds: int = 3  # number of seeds, from 0 (at least 2 for the claims)
device: str = "auto"  # auto | cpu | cuda
output_dir: str = "figures"  # where table, figure and claims go, relative to the repository

# %%
import statistics
from dataclasses import replace

import matplotlib.pyplot as plt
import pandas as pd
import torch

from fedlora_kit import notebook as kit
from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.conformance.methods import CHECKS
from fedlora_kit.experiments.placing import tiny_device
from fedlora_kit.experiments.setup import build
from fedlora_kit.experiments.spec import MethodSpec
from fedlora_kit.looks import FAINT, GREY, SINGLE, of_method
from fedlora_kit.methods import METHODS, ClientUpdate, FedIT, register
from fedlora_kit.papers.fed_hello import grid
from fedlora_kit.papers.fedlora_optimizer import tables
from fedlora_kit.papers.ffa_lora import table1
from fedlora_kit.papers.lessons import your_own_method as lesson
from fedlora_kit.papers.lessons.small import OWN, digits_run, dirichlet
from fedlora_kit.training.rounds import run_federation

out = kit.begin("lessons/your_own_method", profile, output_dir)
place = tiny_device(device)

# %% [markdown]
# ## 1. The idea
#
# Clients with unlike data move the adapter by unlike amounts. How long are the steps of five clients with Dirichlet(0.3)
# labels after one round? An adapter here is 32 tensors (16 modules, $A$ of 8 × 64 and $B$ of 64 × 8), and the length of
# a client's update is the norm over all of them.

# %%
fed = build(digits_run("local-only", split=dirichlet(0.3, 5), rounds=1), place)
alone = run_federation(fed)
start, personal = alone.state, alone.personal  # nobody sent anything: the global adapter is still the start
length = {
    k: torch.stack([(own[n] - start[n]).norm() for n in own]).norm().item() for k, own in personal.items()
}
fig, axes = plt.subplots(figsize=(SINGLE, 1.9))
axes.bar(list(length), list(length.values()), color=FAINT, width=0.6)
axes.axhline(
    statistics.median(length.values()), color=of_method("capped").colour, ls="--", label="the median"
)
axes.set(xlabel="client", ylabel="length of its update")
axes.margins(y=0.25)
axes.legend(loc="upper right")
out.figure(
    fig, "lengths", caption="Length of each of five clients' updates after one round, and their median."
)

# %% [markdown]
# Those with the longest steps pull hardest. Our idea: **no client may move the adapter by more than the median client
# does**; longer updates are shortened to that. Is it a good idea? We do not know. That is what the table is for.
#
# ## 2. The class
#
# A method holds no loop and no data. It answers questions that the round loop asks:
#
# | question | method | the default |
# |---|---|---|
# | does this LoRA tensor train, at this client, in this round? | `trains` | none: you must say |
# | is a trained tensor sent, or does it stay with its client? | `sends` | all are sent |
# | how do updates become the next global adapter? | `aggregate` | mean over the senders, weighted by examples |
#
# Ours trains and sends what FedAvg does, so it derives from `FedIT` and says how to aggregate: shorten, then average as
# usual.


# %%
@register
class Capped(FedIT):
    """LoRA with FedAvg, where no client moves the adapter by more than the median client does."""

    name = "capped"
    title = "Capped"
    source = "the lesson your_own_method"

    def aggregate(self, global_state, updates):
        lengths = [self.length(global_state, u) for u in updates]
        cap = statistics.median(lengths)
        shortened = [
            self.scaled(global_state, u, cap / length) if length > cap else u
            for u, length in zip(updates, lengths, strict=True)
        ]
        return super().aggregate(global_state, shortened)

    @staticmethod
    def length(before, update):
        return torch.stack([(t - before[n]).norm() for n, t in update.tensors.items()]).norm().item()

    @staticmethod
    def scaled(before, update, factor):
        tensors = {n: before[n] + factor * (t - before[n]) for n, t in update.tensors.items()}
        return replace(update, tensors=tensors)


print("registered:", "capped" in METHODS, "|", METHODS["capped"].title)

# %% [markdown]
# ## 3. Check before you train
#
# A wrong average trains to the end and prints numbers; that is the typical failure of the field. So the kit has a
# **conformance suite**: what every method must hold, checked on tiny models with random data (a classifier of two layers of
# width 16, a matrix that is not square), in a few seconds.

# %%
pd.set_option("display.max_colwidth", None)
checked = lesson.conformance("capped")
assert checked["holds"].all()
checked[["check", "holds"]]

# %% [markdown]
# The kit's own methods pass the same checks as tests. `fedlora new method my-method --to DIR` writes a class to fill in and
# such a test beside it, in a folder of your own; without `--to` it becomes part of the kit (and the keys of all runs change with
# the kit's source).
#
# ## 4. Into the table
#
# From here on `capped` is a name like any other. A table's setting takes it among its `methods`; splits, cohorts, starting
# adapter and learning rate are those of all the others. We shorten the table: three methods, two splits, six rounds of
# 12 clients, four a round.

# %%
setting = lesson.setting(seeds, own="capped")
done = kit.run_cells(grid.cells(setting), device=device, label="your_own_method")
results = kit.results_frame(done)
out.table(results, "results")
out.table(kit.mean_std_table(results, rows=["method"], column="split"))

# %% [markdown]
# `capped` and `lora` have clients that can all train everything; `fed-hello` keeps to the resources 1:1:1 (a third of the
# clients train 2 of 4 layers, a third 3), so it is at a disadvantage here. (`pat_10` is the table's split "Non-IID 10/1.0": 10
# of CIFAR-100's classes a client in the paper, 2 of 10 digits here.)

# %%
fig, axes = plt.subplots(figsize=(SINGLE, 2.4))
for side, name in zip((-0.22, 0, 0.22), setting.methods, strict=True):
    look = of_method(name)
    for at, split in enumerate(setting.splits):
        scores = results[(results["method"] == name) & (results["split"] == split)]["accuracy"]
        label = METHODS[name].title if at == 0 else None
        axes.plot([at + side] * len(scores), scores, look.marker, color=look.colour, alpha=0.75, label=label)
        axes.hlines(scores.mean(), at + side - 0.08, at + side + 0.08, color=look.colour)
axes.axhline(10, color=FAINT, lw=0.8, ls=":")
axes.annotate("guessing", (1.42, 10), (0, 2), textcoords="offset points", fontsize=7, ha="right", color=GREY)
axes.set_xticks(range(len(setting.splits)), ["IID", "2 classes a client"])
axes.set(ylabel="accuracy after 6 rounds, %", xlim=(-0.45, 1.45), ylim=(0, None))
axes.legend()
out.figure(
    fig,
    caption="Accuracy after six rounds of three methods under two splits: marks are seeds, bars their means.",
)

# %% [markdown]
# Marks are seeds, bars their means. A method that the kit does not know gets a colour by its name, the same in every
# figure.
#
# Look closely: capped's numbers are those of lora, *give or take a single image*. Nothing is wrong with the table, nor with the
# class; the checks would have told. Something about this table leaves our idea next to nothing to do. Exercise 3 asks what.
#
# ## 5. Every other table
#
# The same word in the other tables' settings. Nothing is trained here; we only look at what they would run:

# %%
ffa = table1.EXPERIMENT.setting("smoke", methods=["lora", "ffa-lora", "capped"], tasks=["polarity"])
flo = tables.setting("fedlora-optimizer/global", "smoke", methods=["lora", "capped"])
planned = {
    "ffa-lora/table1, learning-rate grid": table1.EXPERIMENT.grid(ffa),
    "fedlora-optimizer/global": tables.cells(flo),
}
for table, cells in planned.items():
    own = [c for c in cells if c.coords["method"] == "capped"]
    print(f"{table}: {len(cells)} runs, {len(own)} of them capped's; the first: {dict(own[0].coords)}")

# %% [markdown]
# A method without a learning-rate grid of its own takes LoRA's. The command line runs notebooks in processes of their own, which
# know the methods of the kit; `--with` names the file that holds yours.
#
# ```
# fedlora reproduce fed-hello/table2 --with capped.py --set methods=lora,fed-hello,capped
# fedlora reproduce ffa-lora/table1 --with capped.py --set methods=lora,ffa-lora,capped --set epsilons=0,6
# ```
#
# Under DP, too: the loop clips and adds noise, whatever the method. (A method that cannot be private says why, in
# `not_private`.)
#
# ## Does it help?

# %%
out.claims(kit.judge_all(lesson.claims("capped"), results))

# %%
out.note(
    [
        OWN,
        "Capped is an example, made up for this lesson; related rules are known from robust aggregation.",
        "What a method of a notebook reaches is part of the key of its runs: change the class, a function or a constant that "
        "it uses, or its base class, and its runs are trained anew.",
    ]
)

# %% [markdown]
# ## Exercises
#
# Answer each in a cell of your own first (below the selected cell: press `b`). The solution comes after the question,
# folded: a click on its three dots opens it, and a click on those below it shows what it printed.
#
# **1. A method of one line.** Write `top-b` (with `name`, `title` and `source`, as above): only $B$ of the upper two layers (2 and 3) trains. How many numbers does a client
# send? (`trains(self, tensor, client, round_index)` says yes or no to a tensor's name, `models.targets.layer_index` gives its
# layer, and `run_federation(…).history[0]["parameters_sent"]` what the clients of the first round sent.)


# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
from fedlora_kit.models.targets import layer_index


@register
class TopB(FedIT):
    """B of the layers 2 and 3 only."""

    name = "solution-top-b"  # yours may have taken the other name
    title = "Top B"
    source = "the lesson your_own_method"

    def trains(self, tensor, client, round_index):
        return ".lora_B" in tensor and layer_index(tensor) >= 2


history = run_federation(build(digits_run("solution-top-b", rounds=1, lr=1.0), place)).history
print("numbers sent by each client:", history[0]["parameters_sent"])
# 8 modules (q, k, v, o of two layers) · 64 · 8 = 4,096: a quarter of LoRA's 16,384. The average is exact, as A is common.

# %% [markdown]
# **2. A broken one.** Write an `aggregate` that forgets the weights (every client counts the same) or one that takes the
# first update only. Which of the suite's first three checks (`lesson.conformance(name, CHECKS[:3])`: those of the aggregate
# alone) notice?


# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
@register
class First(FedIT):
    """The mistake of a typo: only the first update counts."""

    name = "solution-first"
    title = "First"
    source = "the lesson your_own_method"

    def aggregate(self, global_state, updates):
        return super().aggregate(global_state, updates[:1])


@register
class Unweighted(FedIT):
    """Every client counts the same."""

    name = "solution-unweighted"
    title = "Unweighted"
    source = "the lesson your_own_method"

    def aggregate(self, global_state, updates):
        return super().aggregate(global_state, [ClientUpdate(u.client, 1, u.tensors) for u in updates])


for name in ("solution-first", "solution-unweighted"):
    found = lesson.conformance(name, CHECKS[:3])
    print(name, "fails:", found[~found["holds"]]["says"].tolist())
print("unweighted passes all nine:", lesson.conformance("solution-unweighted")["holds"].all())
# The first is caught by the order of the updates. The other passes everything: equal weights are a legitimate rule
# (Fed-HeLLo's released code has it). No check knows what you meant.

# %% [markdown]
# **3. Why nothing?** In section 1 the updates' lengths differ; in the table capping changes nothing. Measure the lengths in the
# table's own setting, and say why they are what they are. (Its clients take *one step of AdamW* a round.)

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
spec = next(c.spec for c in grid.cells(setting) if c.coords["method"] == "lora")
for optimizer in ("adamw", "sgd"):
    changes = {
        "method": MethodSpec(name="local-only"),
        "rounds": spec.rounds.model_copy(update={"rounds": 1}),
        "local": spec.local.model_copy(update={"optimizer": optimizer}),
    }
    first = build(spec.model_copy(update=changes), place)
    before = AdapterSlot(first.model).read()
    own = run_federation(first).personal
    found = [
        torch.stack([(t - before[n]).norm() for n, t in mine.items()]).norm().item() for mine in own.values()
    ]
    print(f"{optimizer:6s} lengths of four clients' updates:", [f"{x:.4g}" for x in found])
# AdamW's first step moves every entry that has a gradient by the learning rate, whatever the gradient's size: all updates are
# equally long (almost: gradients near 0 move less), and the median client is like any other. Under SGD they differ. A method's idea and its table's optimiser belong together,
# and a table that shows no difference may say more about the table.

# %% [markdown]
# ## Where to go on
#
# * `CONTRIBUTING.md`: methods for unequal clients (layers, ranks), partitioners, notebooks.
# * `fedlora_kit/methods/`: one method a file; `fedsa_lora.py` keeps B at home in three lines.
# * `fedlora_kit/conformance/methods.py`: the conformance suite.
