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
# # Directions and magnitudes of A and B
#
# Ten minutes of reading, about half a minute of running, no network and no GPU.
#
# An arrow has a length and a direction. FedLoRA-Optimizer (Zhao, Zhu, Zhang, Chen, Guo, arXiv 2510.11274) splits the
# rows of $A$ and the columns of $B$ in this way, and its abstract says what for: the knowledge that clients **share**
# sits in the *direction of A*, what is **personal** in the *magnitude of B*. So a global optimiser trains the one, and
# local optimisers train the other.
#
# Only the abstract and summaries of the paper are known. What they leave open is a setting of the kit's method; where this
# lesson shows one choice, others would be as good.

# %% tags=["parameters"]
profile: str = "smoke"  # smoke | laptop | small | paper; this lesson is the same in all of them
seeds: int = 3  # number of seeds, from 0
device: str = "auto"  # auto | cpu | cuda
output_dir: str = "figures"  # where table, figure and claims go, relative to the repository

# %%
import pandas as pd
import torch

from fedlora_kit import notebook as kit
from fedlora_kit.experiments.placing import tiny_device
from fedlora_kit.experiments.setup import build
from fedlora_kit.methods import method
from fedlora_kit.models.components import compose, decompose, vector_dim
from fedlora_kit.papers.fedlora_optimizer import method as flo_method
from fedlora_kit.papers.lessons import directions_and_magnitudes as lesson
from fedlora_kit.papers.lessons.small import OWN
from fedlora_kit.training.rounds import run_federation

out = kit.begin("lessons/directions_and_magnitudes", profile, output_dir)
place = tiny_device(device)

# %% [markdown]
# ## 1. What an average does to arrows
#
# Two clients hold a row of $A$ each; with two entries it can be drawn. The usual average adds the arrows and halves the
# sum. It points somewhere between, and it is **too short**: what the clients disagree about in direction, the average
# loses in length. Averaging lengths as lengths and directions as directions does not.

# %%
rows = [lesson.plane(10, 1.0), lesson.plane(80, 1.6)]  # (angle in degrees, length)
curve = lesson.lengths(angles=range(0, 181, 3))
out.figure(
    lesson.figure(rows, curve),
    caption="Left: two clients' rows as arrows, and their averages by two rules. Right: length of the average of two rows of "
    "length 1 over the angle between them.",
)

# %% [markdown]
# Left: the clients' rows in grey, their averages in the colours of the legend at the right. Right: two arrows of length 1. At
# 90 degrees the usual average has lost 29 % of the length, at 180 degrees there is nothing left. (There the other rule still
# has a length, but no direction to give it: opposite directions cancel, and what it then points to is rounding.) Whether shortening is a fault is open to debate: it can also be read as caution about what clients
# disagree on.
#
# ## 2. The split of a real adapter
#
# $A$ is r × d_in = 8 × 64. Its 8 rows are the arrows, one a rank component: $A = A_M \cdot A_D$ with magnitudes $A_M$ of
# 8 × 1 and unit rows $A_D$ of 8 × 64. $B$ is 64 × 8; its 8 columns are the arrows, $B_M$ is 1 × 8. Component i of the
# change is then (length of column i) · (length of row i) · (a matrix of two directions).

# %%
fed = build(lesson.described("lora"), place)
state = run_federation(fed).state  # a global adapter after three rounds
module = "vit.layers.0.attention.v_proj"
flo_method.shapes(state, module, axis="rank")

# %%
for factor in "AB":
    name = f"{module}.lora_{factor}.weight"
    dim = vector_dim(name, "rank")  # along which the arrows lie: 1 for A, 0 for B
    magnitude, direction = decompose(state[name], dim)
    back = compose(magnitude, direction, dim)
    print(factor, "comes back bit for bit:", torch.equal(back, state[name]))

# %% [markdown]
# There and back again, without losing a bit: magnitudes and directions are kept in float64. Another property matters
# when a *direction* is trained. `compose` divides each by its length, so that only where it points counts; its gradient must
# then be orthogonal to it, and a step secretly changes no length:

# %%
magnitude, direction = decompose(state[f"{module}.lora_A.weight"], 1)
direction.requires_grad_(True)
goal = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)).to(place)
loss = ((compose(magnitude, direction, 1) - goal) ** 2).sum()
(gradient,) = torch.autograd.grad(loss, direction)
along = (gradient * direction).sum(1).abs() / gradient.norm(dim=1)
print("largest cosine between a row's direction and its gradient:", float(along.detach().max()))

# %% [markdown]
# ## 3. Who trains what, and when
#
# A round of FedLoRA-Optimizer: the clients train $A$ and $B$ as usual; the server averages the four components apart;
# then come the **stages**. The method declares them, the round loop runs them:

# %%
optimizer = method("fedlora-optimizer")
pd.DataFrame(
    {"stage": s.name, "where": s.where, "trains": s.trains, "clients": "all" if s.everyone else "the cohort"}
    for s in optimizer.stages(0, last=True)
)

# %% [markdown]
# What did each stage move? One round without stages, one with them, and the difference component by component (the largest
# change of any entry, over all 16 modules):

# %%
plain = run_federation(
    build(lesson.described("fedlora-optimizer", rounds=1, global_trains=None, local_trains=None), place)
)
fed = build(lesson.described("fedlora-optimizer", rounds=1), place)
staged = run_federation(fed)
moved = {"global optimiser": flo_method.step_frame(plain.state, staged.state, "rank")}
for k, own in staged.personal.items():
    personal = fed.method.personalised(staged.state, own)
    moved[f"local optimiser of client {k}"] = flo_method.step_frame(staged.state, personal, "rank")
changes = pd.concat([frame.assign(stage=stage, seed=0) for stage, frame in moved.items()])
table = changes.pivot(index="stage", columns="component", values="change").reset_index()
out.table(table, "changes", digits=5)
table.round(6)

# %% [markdown]
# The zeros are what matters: each optimiser keeps its hands off the other three components (up to the rounding of the
# composed float32 factor). And what a client keeps for itself is tiny, 8 numbers a module:

# %%
own = staged.personal[0]
print({name: tuple(t.shape) for name, t in own.items() if name.startswith(module)})
print(
    "numbers that a client keeps:",
    sum(t.numel() for t in own.values()),
    "of",
    sum(t.numel() for t in staged.state.values()),
)

# %% [markdown]
# ## 4. Two scores
#
# So there are two adapters to judge: the **global** one on the common test images, and each client's **own** one on images
# of its own that it did not train on (a fifth is held out). Three clients with unlike labels, three rounds. Both methods
# see the same split; FedLoRA-Optimizer takes more steps, and its server has 40 examples to train on, so this is a look at
# the two scores, *not a contest*.

# %%
done = kit.run_cells(lesson.cells(seeds), device=device, label="directions")
results = kit.results_frame(done)
out.table(results, "results")
scores = {"global adapter": "accuracy", "own adapters": "local_accuracy"}
tables = [
    kit.mean_std_table(results, rows=["method"], column="task", value=value).rename(
        columns={"digits": f"{name}, %"}
    )
    for name, value in scores.items()
]
out.table(tables[0].merge(tables[1], on="method"))

# %% [markdown]
# ## The claims, judged
#
# That the code does what the abstract says: each optimiser moves its own component and no other.

# %%
out.claims(kit.judge_all(flo_method.claims(), changes))

# %%
out.note(
    [
        OWN,
        "Of the paper the abstract is known, and summaries: the axis, the re-normalisation, the data, steps and rounds of "
        "either optimiser are the kit's choices (notebooks/fedlora-optimizer/open_choices.ipynb tries others).",
        "The paper fine-tunes language models on instructions; this lesson classifies digits.",
    ]
)

# %% [markdown]
# ## Exercises
#
# Answer each in a cell of your own first (below the selected cell: press `b`). The solution comes after the question,
# folded: a click on its three dots opens it, and a click on those below it shows what it printed.
#
# **1. Other arrows.** With `axis="vector"` the arrows are $A$'s columns and $B$'s rows, one an input or output. What are
# the shapes of the magnitudes then, and how many numbers would a client keep?

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
print(flo_method.shapes(state, module, axis="vector"))
print(
    "a client keeps",
    16 * decompose(state[f"{module}.lora_B.weight"], vector_dim("m.lora_B.weight", "vector"))[0].numel(),
)
# A_M is 1 × 64, one an input; B_M is 64 × 1, one an output: 16 modules · 64 = 1,024 numbers instead of 128.

# %% [markdown]
# **2. Without re-normalisation.** `method("fedlora-optimizer", renormalise=False)` averages directions and leaves them
# as short as they come. For the two arrows of section 1, is its average the same as FedIT's?

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
rules = {
    "FedIT": method("lora"),
    "re-normalised": method("fedlora-optimizer"),
    "not re-normalised": method("fedlora-optimizer", renormalise=False),
}
for said, rule in rules.items():
    got = lesson.average(rule, rows)
    print(f"{said:18s} {[round(x, 3) for x in got[0].tolist()]}  length {float(got.norm()):.3f}")
# No: FedIT weighs a client's direction by its length, so the long arrow pulls. Here every direction counts the same. The last
# agrees with FedIT if the arrows are equally long; all three agree only if they point the same way.

# %% [markdown]
# **3. Below zero.** A magnitude may train below 0. Compose a factor with the magnitude −2 and split it again. What do you
# get, and is anything lost?

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
heading = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
vector = compose(torch.tensor([[-2.0]], dtype=torch.float64), heading, 1, torch.float64)
again = decompose(vector, 1)
print("magnitude", again[0].tolist(), "direction", again[1].tolist())
# Length 2 and the opposite direction: the vector is the same, its description has changed. Who compares magnitudes over time
# has to look for such a flip.

# %% [markdown]
# ## Where to go on
#
# * `notebooks/fedlora-optimizer/method.ipynb`: the whole pipeline on a language model, as a picture.
# * `notebooks/fedlora-optimizer/preliminary.ipynb`: is A's direction, and B's magnitude, really what differs?
# * `fedlora_kit/models/components.py`: the split, in two functions.
