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
# # From a laptop to a cluster: plan, shards, one store
#
# Ten minutes of reading, about half a minute of running, no network and no GPU.
#
# The `smoke` profile takes minutes. At the papers' size one table is hundreds of runs on models of up to 7 billion
# parameters. Before you begin you want to know what it costs; then to spread it, to lose a machine without losing the
# work, and to bring everything back to where the notebooks find it. All of that rests on one idea, so it comes first.

# %% tags=["parameters"]
profile: str = "smoke"  # smoke | laptop | small | paper; this lesson is the same in all of them
seeds: int = 3  # seeds of the small runs that are shared out
device: str = "auto"  # auto | cpu | cuda
output_dir: str = "figures"  # where table, figure and claims go, relative to the repository
tflops: float = 150.0  # 10^12 operations a second that the planned device reaches in training

# %%
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from fedlora_kit import notebook as kit
from fedlora_kit.engines.shards import Shard
from fedlora_kit.experiments.placing import tiny_device
from fedlora_kit.experiments.remote import RemoteStore
from fedlora_kit.experiments.setup import build
from fedlora_kit.experiments.store import Store
from fedlora_kit.papers.lessons import at_scale as lesson
from fedlora_kit.papers.lessons.small import OWN, digits_run
from fedlora_kit.papers.runs_of import planned_runs, runs_of
from fedlora_kit.training.rounds import run_federation

out = kit.begin("lessons/at_scale", profile, output_dir)
place = tiny_device(device)
checks = []  # what the claims at the end are judged by

# %% [markdown]
# ## 1. A run is its description
#
# A run's **key** is a hash of everything that decides its numbers: its description, the source that computes, data,
# backbone, library versions. The same description has the same key on every machine; change anything and it is
# another run.

# %%
one = digits_run("lora", seed=0)
for said, spec in {
    "a run": one,
    "described again": digits_run("lora", seed=0),
    "another seed": digits_run("lora", seed=1),
    "one step more": digits_run("lora", seed=0, steps=6),
}.items():
    print(f"{said:16s} {spec.key()}")

# %% [markdown]
# So nobody needs to hand out numbers, and machines need not talk to each other: a finished run lies in the **store** under
# its key, and whoever wants it looks there first. And what a notebook will want can be named without training:

# %%
for item in ("start_here", "fed-hello/table2"):
    specs = runs_of(item, "paper")
    print(f"{item}: {len(specs)} runs; the first: {specs[0].method.name} on {specs[0].model.backbone}")

# %% [markdown]
# ## 2. Plan
#
# From a description one can count: operations, memory, what travels, what is written. On a device that reaches 150 TFLOP/s in
# training (a third to a half of a data sheet's number is usual), four items at the papers' size:

# %%
planned = lesson.plan_frame({item: planned_runs(item, "paper") for item in lesson.ITEMS}, "paper", tflops)
out.table(planned, digits=1)

# %%
out.figure(
    lesson.figure(planned, tflops),
    caption=f"Estimated hours of one device at {tflops:g} TFLOP/s for four items at the papers' size.",
)

# %% [markdown]
# The bars' axis is logarithmic. The largest table is weeks of one GPU, then, and a day or two for twenty of them. The memory column says which GPU will do.
# On the command line, with what the store already has taken off:
#
# ```
# fedlora plan --profile paper --tflops 150
# fedlora plan fed-hello/table2 --profile small          # measures this machine instead
# fedlora plan --check                                   # the estimate beside what finished runs took
# ```
#
# Cluster nodes often have no network. A **mirror** holds the models and data that the items need; it is built where there is one,
# and every file is compared with the Hub's digest:
#
# ```
# fedlora fetch fed-hello --profile paper --to /shared/hub --dry-run    # what, and how large
# fedlora fetch fed-hello --profile paper --to /shared/hub
# export FEDLORA_HUB=/shared/hub
# ```
#
# ## 3. Shards
#
# The plainest way to spread runs needs no scheduler that knows the kit: an **array job**. Share i of n takes the runs whose key,
# read as a number, leaves the rest i − 1 when divided by n. All shares compute the same list, and no two take the same run.

# %%
specs = lesson.shared_specs(seeds)  # six small runs
keys = [spec.key() for spec in specs]
shards = [Shard(i, 3) for i in (1, 2, 3)]
taken = pd.DataFrame(
    {f"share {s.number}/3": ["✓" if s.takes(key) else "" for key in keys] for s in shards},
    index=pd.Index([f"{spec.method.name}, seed {spec.seed}" for spec in specs], name="run"),
)
checks += [("shares", sum(s.takes(key) for s in shards) == 1) for key in keys]
taken

# %% [markdown]
# The shares are even on average only: of six runs one share may get none, with hundreds it matters less. We play three machines that see one folder, one after
# the other:

# %%
work = tempfile.TemporaryDirectory()
store = Store(Path(work.name) / "runs")
for shard in shards:
    trained = lesson.train([spec for spec in specs if shard.takes(spec.key())], store, device)
    there = sum(store.load(key) is not None for key in keys)
    print(f"share {shard.number} trained {trained} runs; {there} of {len(keys)} are in the store now")

# %% [markdown]
# Whoever asks for all six now trains nothing. That is how the notebooks end the work: they ask for their runs, find them, and
# only read. On Slurm, with 16 shares and a store on a shared disk:
#
# ```
# #SBATCH --array=1-16 --gpus=1
# export FEDLORA_RUNS=/shared/runs FEDLORA_HUB=/shared/hub
# fedlora reproduce fed-hello --profile paper --shard $SLURM_ARRAY_TASK_ID/16
# ```
#
# and afterwards once `fedlora reproduce fed-hello --profile paper` with the same `FEDLORA_RUNS`. (An item that chooses its
# learning rate knows its table's runs only when its whole grid is done: run the array a second time.)
#
# ## 4. Losing a machine
#
# After every round a run leaves a checkpoint. All its random numbers come from streams that are named by purpose, round and
# client, not from one generator that has been somewhere. So a run that goes on from a checkpoint does not end *similarly*, it
# ends with **the same bits**:

# %%
description = digits_run("lora", rounds=3)
undisturbed = run_federation(build(description, place))
left = lesson.stop_after(build(description, place), rounds=2)  # the machine is lost after round 2 of 3
resumed = run_federation(build(description, place), resume=left)
digests = [lesson.outcome_digest(outcome) for outcome in (undisturbed, resumed)]
checks.append(("resumed", digests[0] == digests[1]))
print("undisturbed", digests[0][:32], "\nresumed    ", digests[1][:32])

# %% [markdown]
# Two processes that want the same run do not meet either: one holds a lock and trains, the other waits and reads. A lock whose
# owner has died is taken over, with its checkpoints (`docs/robustness.md`).
#
# ## 5. One store for many machines
#
# Machines without a common disk meet in an object store. There are no locks and no renames, and none are needed: files first, the
# **manifest** with sizes and SHA-256 last. Without its manifest an entry is not there. Any address that fsspec knows will do;
# here a folder plays the bucket:

# %%
remote = RemoteStore((Path(work.name) / "bucket").as_uri())
for key in keys:
    remote.publish(store.load(key))
elsewhere = Store(Path(work.name) / "another machine")
published = remote.keys()
for key in published:
    fetched = remote.fetch(key, elsewhere)
    same = fetched.results["adapter_digest"] == store.load(key).results["adapter_digest"]
    checks.append(("fetched", same and fetched.history == store.load(key).history))
print(
    len(remote.keys()),
    "runs published;",
    sum(elsewhere.load(key) is not None for key in keys),
    "fetched and checked",
)

# %% [markdown]
# Ray does sections 3 to 5 by itself: it spreads the runs over the GPUs of a cluster, several on one GPU where the plan says that they
# fit, sends those of a lost machine again, and fetches what is published:
#
# ```
# pip install 'fedlora-kit[ray]'
# fedlora reproduce fed-hello --profile small --engine ray                        # this machine's GPUs
# fedlora reproduce fed-hello --profile paper --engine ray --address auto --store s3://bucket/fedlora
# ```
#
# (`docs/ray.md` has the cluster, and Ray on Slurm.)
#
# ## The claims, judged

# %%
found = pd.DataFrame(checks, columns=["check", "holds"])
out.claims(kit.judge_all(lesson.claims(), found))

# %%
out.note(
    [
        OWN,
        "The hours are estimates for one device at the speed that is given, not measurements: `fedlora plan --check` sets "
        "estimates of finished runs beside what they took.",
        "Bit-identical ends hold on one kind of device with the same library versions; another kind of GPU may change the "
        "last bits.",
    ]
)

# %% [markdown]
# ## Exercises
#
# Answer each in a cell of your own first (below the selected cell: press `b`). The solution comes after the question,
# folded: a click on its three dots opens it, and a click on those below it shows what it printed.
#
# **1. How many GPUs?** You want `ffa-lora/table5` at the paper's size within three days. How many devices of 150 TFLOP/s
# does that take if the shares were even? And of 50 TFLOP/s?

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
for speed in (150.0, 50.0):
    hours = lesson.plan_frame({"ffa-lora/table5": planned_runs("ffa-lora/table5", "paper")}, "paper", speed)[
        "device_hours"
    ].iloc[0]
    print(f"{speed:g} TFLOP/s: {hours:,.0f} h, so {int(np.ceil(hours / 72))} devices for 72 h")
# Not quite three times as many: searching noise and going through rounds takes time that does not depend on the GPU's speed.

# %% [markdown]
# **2. How even are shares?** With 16 shares, how many runs do the smallest and the largest get of 48 and of 768 runs? (Draw random
# keys of 16 hex digits.)

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
rng = np.random.default_rng(0)
for runs in (48, 768):
    drawn = [f"{int(x):016x}" for x in rng.integers(0, 2**63, size=runs)]
    sizes = [sum(Shard(i + 1, 16).takes(key) for key in drawn) for i in range(16)]
    print(f"{runs} runs: {min(sizes)} to {max(sizes)} a share; even would be {runs // 16}")
# Few runs are shared badly: then give each task one run, or use Ray, whose idle workers take the next run that waits.

# %% [markdown]
# **3. A damaged file.** Publish a run into a second bucket, flip one byte of a file there (in the folder that has the run's key
# as its name), and fetch the run into an empty store. What happens?

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
import warnings

second = Path(tempfile.mkdtemp(dir=work.name))
bucket = RemoteStore((second / "bucket").as_uri())
bucket.publish(store.load(keys[0]))
victim = next((second / "bucket" / keys[0]).rglob("*.safetensors"))
content = bytearray(victim.read_bytes())
content[-1] ^= 1
victim.write_bytes(bytes(content))
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    print("fetched:", bucket.fetch(keys[0], Store(second / "runs")))
print("said:", type(told[0].message).__name__ if told else "nothing")
# The SHA-256 does not agree with the manifest: a warning, and the run counts as absent. It would be trained again.

# %% [markdown]
# ## Where to go on
#
# * `docs/scale.md`: plans, job arrays, mirrors. `docs/ray.md`: clusters, object stores, Slurm. `docs/robustness.md`: what is tested to survive what.
# * `fedlora runs` lists the store; `fedlora doctor` says whether this machine is ready.
# * `docs/real_data.md`, "Without a network": mirrors.
