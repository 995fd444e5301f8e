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
# # Fed-HeLLo: when the layers are scored, and how stable the scores are
#
# **What the paper claims.** After a warm start the layers are scored by their Fisher information, and again every so many
# rounds: their importance changes as the adapter trains. How much depends on the start and the period? And does another
# seed, or another number of proxy examples, find the same layers? (Zhang, Liu, Xu, Hu, IEEE TNNLS 2025; that start and
# period were varied is inferred from the names of the released logs, the numbers are not known.)

# %% tags=["parameters"]
profile: str = "smoke"  # smoke | laptop | small | paper
seeds: int | None = None  # number of reported seeds, from 0; none: the profile's own
device: str = "auto"  # auto | cpu | cuda
output_dir: str = "figures"  # where the results go, relative to the repository
task: str | None = None  # cifar100 or digits; or any other in classes
backbone: str | None = None  # such as facebook/dinov2-small or google/vit-base-patch16-224-in21k
split: str | None = None  # iid, pat_20 or pat_10
shares: list[float] | None = None  # starts and periods, as shares of the rounds
clients: int | None = None  # clients there are
cohort: int | None = None  # clients drawn a round
rounds: int | None = None  # federated rounds
lr: float | None = None  # learning rate of the first round, for all methods
proxy_examples: int | None = None  # examples that the layers are scored on
train_limit: int | None = None  # at most so many training examples
eval_limit: int | None = None  # at most so many scored examples

# %%
from IPython.display import display

from fedlora_kit import notebook as kit
from fedlora_kit.methods import method
from fedlora_kit.papers.fed_hello import fim_schedule as schedule
from fedlora_kit.papers.fed_hello.held import held
from fedlora_kit.papers.fed_hello.importance import scores_frame
from fedlora_kit.papers.fed_hello.table2 import WORDS

out = kit.begin("fed-hello/fim_schedule", profile, output_dir)
setting = schedule.setting(
    profile,
    split,
    seeds=seeds,
    task=task,
    backbone=backbone,
    clients=clients,
    cohort=cohort,
    rounds=rounds,
    lr=lr,
    proxy_examples=proxy_examples,
    train_limit=train_limit,
    eval_limit=eval_limit,
)
parts_of_run = schedule.chosen_shares(shares)
setting

# %% [markdown]
# ## The idea, in a few lines
#
# In which rounds the layers are scored anew, for each start and period:

# %%
cells = schedule.cells(setting, parts_of_run)
for plan in cells:
    if plan.seed == 0 and plan.coords["proxy_examples"] == str(setting.proxy_examples):
        made = method(plan.spec.method.name, **plan.spec.method.settings)
        when = [r + 1 for r in range(setting.rounds) if made.refreshes(r)]
        print(f"start {plan.coords['start']:>3s}, period {plan.coords['period']:>3s}: before rounds {when}")

# %% [markdown]
# ## Who holds what

# %%
kind = kit.get_task(setting.task)
split = setting.splits[0]
display(kit.partition_figure(held(setting, split), kind.label_names, WORDS[split]))

# %% [markdown]
# ## The runs

# %%
done = kit.run_cells(cells, device=device, label="runs")
results = kit.results_frame(done)
out.table(results, "results")

# %% [markdown]
# ## The table
#
# Test accuracy in %, mean ± standard deviation over seeds: the best over all rounds, the mean of the last ten, the last.
# Start and period are in rounds.

# %%
columns = {"accuracy_best": "best", "accuracy_last10": "last 10 rounds", "accuracy": "last round"}
plans = ["start", "period", "proxy_examples"]
melted = results.melt([*plans, "seed"], list(columns), "measure", "percent").replace({"measure": columns})
out.table(kit.mean_std_table(melted, rows=plans, column="measure", value="percent"))

# %% [markdown]
# ## The figure
#
# Left: how the scores are shared among the layers, refresh by refresh, for the first start and period. Right: how well
# the order of the layers agrees between seeds, and between numbers of proxy examples (1: the same order, 0: unrelated).

# %%
scores = schedule.own_schedule(scores_frame(done, plans), setting, parts_of_run)
out.figure(
    schedule.figure(scores, setting),
    caption="Left: share of the Fisher scores by layer and refresh, mean over seeds. Right: Spearman's rank "
    "correlation of the layers' scores between seeds and between numbers of proxy examples.",
)

# %%
out.table(schedule.of_seeds(scores, setting).round(2), "agreement_of_seeds")

# %%
out.table(schedule.of_sizes(scores).round(2), "agreement_of_sizes")

# %% [markdown]
# ## Beside the paper
#
# No number of this ablation is known.

# %%
reported = kit.published("fed-hello", "fim_schedule")
by = ["split", *plans]
out.comparison(kit.compare(results, reported, by, "best test accuracy %", "accuracy_best", comparable=False))

# %% [markdown]
# ## The claims, judged

# %%
judged = kit.judge_all(schedule.claims(setting, parts_of_run), results)
out.claims([*judged, *kit.judge_all([schedule.stability_claim()], schedule.of_sizes(scores))])

# %% [markdown]
# ## Where this departs from the paper

# %%
out.note(schedule.deviations(setting))
