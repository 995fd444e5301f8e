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
# # FedLoRA-Optimizer, ablation: which structure, and which component does each optimiser train?
#
# **What the paper says.** The global optimiser trains A's direction, the local ones B's magnitude, one after the other;
# an ablation compares this pipeline with another structure and finds it better. (Zhao et al., arXiv 2510.11274. The
# roles are in the abstract; that there is an ablation is known from summaries. Which structures, which score and all
# numbers are not known.)
#
# **What is compared here.** The pipeline; one joint stage that trains both components at once; the global optimiser
# alone; the local optimisers alone; neither. Then the pipeline with other components in either place.

# %% tags=["parameters"]
profile: str = "smoke"  # smoke | laptop | small | paper
seeds: int | None = None  # number of reported seeds, from 0; none: the profile's own
device: str = "auto"  # auto | cpu | cuda
output_dir: str = "figures"  # where the results go, relative to the repository
task: str | None = None  # instructions, dolly or natural_instructions; or any other of answers
backbone: str | None = None  # such as kit/instruct-tiny or meta-llama/Llama-2-7b-hf
grid: str | None = None  # pairs of components: cross (through the default) or all; none: the profile's own
rounds: int | None = None  # federated rounds
steps: int | None = None  # steps a client and round, and of each optimiser
batch_size: int | None = None  # examples a step
lr: float | None = None  # learning rate
train_limit: int | None = None  # at most so many training examples
eval_limit: int | None = None  # at most so many scored examples

# %%
from fedlora_kit import notebook as kit
from fedlora_kit.experiments.placing import device_for
from fedlora_kit.experiments.setup import build
from fedlora_kit.methods import method
from fedlora_kit.papers.fedlora_optimizer import ablation

out = kit.begin("fedlora-optimizer/ablation", profile, output_dir)
setting = ablation.setting(
    "fedlora-optimizer/ablation",
    profile,
    seeds=seeds,
    task=task,
    backbone=backbone,
    rounds=rounds,
    steps=steps,
    batch_size=batch_size,
    lr=lr,
    train_limit=train_limit,
    eval_limit=eval_limit,
)
pairs = ablation.pairs(profile, grid)
setting

# %% [markdown]
# ## The structures, in a few lines
#
# What follows the average in the last round. A stage at the server trains on the server's examples; one at the clients
# on each client's own. What is shared is averaged again, the rest stays with the client.

# %%
for name, settings in ablation.STRUCTURES.items():
    stages = method("fedlora-optimizer", **settings).stages(setting.rounds - 1, last=True)
    said = [f"{s.where}: trains {', '.join(s.trains)}, shares {', '.join(s.shares) or '-'}" for s in stages]
    print(f"{name:12}", "; then ".join(said) or "nothing")

# %% [markdown]
# Who has what: one category a client, some examples at the server (in every structure, whether it uses them or not),
# and a few examples of each client kept apart to score its own adapter.

# %%
planned = ablation.cells(setting, pairs)
fed = build(planned[0].spec, device_for(planned[0].spec, device))
print("clients:", [len(c) for c in fed.clients])
print(
    "held out:", [len(c) if c else 0 for c in fed.held_out], "server:", len(fed.server) if fed.server else 0
)

# %% [markdown]
# ## The runs

# %%
done = kit.run_cells(planned, device=device, label="runs")
results = kit.results_frame(done)
out.table(results, "results")

# %% [markdown]
# ## The structures
#
# The global adapter on the test part, and each client's own adapter on its own examples (mean over clients), after the
# last round: ROUGE-L in %, loss in nats a token, mean ± standard deviation over seeds.
#
# The local optimisers run at the end and send nothing, so the global scores of "pipeline" and "global only" are those of
# the same adapter, and so are those of "local only" and "neither".

# %%
structures = ablation.table(ablation.structures(results), ["structure", "global", "local"])
out.table(structures)

# %% [markdown]
# ## The components
#
# The pipeline, with each component in the place of A's direction (global) and of B's magnitude (local). For the same
# reason the global scores depend on what the *global* optimiser trains only.

# %%
components = ablation.table(results[results["structure"] == "pipeline"], ["global", "local"])
out.table(components, "components")

# %% [markdown]
# ## Beside the paper
#
# No number of this ablation is known.

# %%
reported = kit.published("fedlora-optimizer", "ablation")
by = ["structure", "global", "local"]
out.comparison(kit.compare(results, reported, by, "ROUGE-L %", "rouge_l", comparable=False))

# %% [markdown]
# ## The claims, judged
#
# Over seeds, by score. Which score the paper means is not known, so both are judged where both can differ.

# %%
out.claims(kit.judge_all(ablation.claims(), results))

# %% [markdown]
# ## Where this departs from the paper

# %%
out.note(ablation.deviations(setting))
