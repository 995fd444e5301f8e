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
# # Fed-HeLLo on LEDGAR: a hundred kinds of contract provisions
#
# **What the paper claims.** Fed-HeLLo is not for images alone: a BERT that tells a hundred kinds of provisions in
# contracts apart is fine-tuned by clients with unequal resources, and should again beat Straggler, Exclusive, FedRA,
# HETLoRA and FlexLoRA. (Zhang, Liu, Xu, Hu, IEEE TNNLS 2025. The model and the two metrics are in the released code; the
# table's numbers are not known to us.)

# %% tags=["parameters"]
profile: str = "smoke"  # smoke | laptop | small | paper
seeds: int | None = None  # number of reported seeds, from 0; none: the profile's own
device: str = "auto"  # auto | cpu | cuda
output_dir: str = "figures"  # where the results go, relative to the repository
task: str | None = None  # ledgar or topics; or any other in classes
backbone: str | None = None  # such as kit/text-tiny or google-bert/bert-base-uncased
methods: list[str] | None = None  # straggler, exclusive, fedra, hetlora, flexlora, fed-hello, lora
splits: list[str] | None = None  # iid, pat_20, pat_10
clients: int | None = None  # clients there are
cohort: int | None = None  # clients drawn a round
rounds: int | None = None  # federated rounds
lr: float | None = None  # learning rate of the first round, for all methods
train_limit: int | None = None  # at most so many training examples
eval_limit: int | None = None  # at most so many scored examples
precision: str | None = None  # fp32 | bf16
mode: str | None = None  # as_described | as_released (the defects of the released code)

# %%
import pandas as pd
from IPython.display import display

from fedlora_kit import notebook as kit
from fedlora_kit.data.sources import load_split
from fedlora_kit.papers.fed_hello import grid, ledgar
from fedlora_kit.papers.fed_hello import other_data as other

out = kit.begin(ledgar.ITEM, profile, output_dir)
setting = ledgar.setting(
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
    train_limit=train_limit,
    eval_limit=eval_limit,
    precision=precision,
    mode=mode,
)
setting

# %% [markdown]
# ## Two F1 scores, in a few lines
#
# F1 of a class is the harmonic mean of precision and recall. Macro-F1 is its mean over the classes, rare or not;
# micro-F1 counts hits and misses over all classes together. With one label an example a miss of one class is a false
# alarm of another, so micro-F1 is the accuracy. A model that always says the commonest class:

# %%
from sklearn.metrics import f1_score

truth, answers = [0, 0, 0, 0, 0, 0, 1, 1, 2, 3], [0] * 10
for average in ("micro", "macro"):
    print(average, round(f1_score(truth, answers, average=average, zero_division=0), 3))

# %% [markdown]
# ## The task, and who holds what
#
# Three examples; then the splits of the runs at seed 0, one row a client, one column a class.

# %%
kind = kit.get_task(setting.task)
examples = load_split(kind, kind.train_split)
for text, label in list(zip(examples.columns[0], examples.labels, strict=True))[:3]:
    print(f"{kind.label_names[label]}: {text[:90]}")

# %%
cells = grid.cells(setting, other.ROC)
for split in setting.splits:
    spec = next(cell.spec for cell in cells if cell.coords["split"] == split)
    train, _ = kit.load_data(spec.data, spec.model.backbone)
    counts = kit.label_counts(kit.split_indices(spec, train), train.labels, kind.num_labels)
    display(kit.partition_figure(counts, kind.label_names, other.words(setting, split)))

# %% [markdown]
# ## Who can afford what
#
# Straggler, Exclusive, FedRA and Fed-HeLLo share out *layers*, HETLoRA and FlexLoRA *ranks*; a third of the clients can
# train half of the layers (or one rank of 16), a third three quarters (four), a third all of them.

# %%
for method in setting.methods:
    print(f"{method:10s}", grid.method_settings(setting, method, other.ROC))

# %% [markdown]
# ## The runs

# %%
done = kit.run_cells(cells, device=device, label="runs")
results = ledgar.f1_frame(done)
out.table(results, "results")

# %% [markdown]
# ## The table
#
# In the round of the best micro-F1 on the test part, as in the released code: micro-F1 and macro-F1 in %, mean ± standard
# deviation over seeds.

# %%
sides = []
for column, what in (("micro_f1_best", "micro-F1"), ("macro_f1_at_best", "macro-F1")):
    side = kit.mean_std_table(results, rows=["method"], column="split", value=column).set_index("method")
    sides.append(side.add_suffix(f", {what}"))
out.table(pd.concat(sides, axis=1).reset_index())

# %% [markdown]
# The best of many evaluations on the test part is optimistic. The last round, and the mean of the last ten:

# %%
for value in ("micro_f1", "macro_f1", "micro_f1_last10", "macro_f1_last10"):
    display(out.table(kit.mean_std_table(results, rows=["method"], column="split", value=value), value))

# %% [markdown]
# ## Beside the paper
#
# No number of this table is known to us.

# %%
reported = kit.published("fed-hello", "ledgar")
by = ["roc", "split", "method"]
same = setting == ledgar.PROFILES["paper"]
both = [
    kit.compare(results, reported, by, f"{what} %", column, comparable=same)
    for column, what in ledgar.METRICS.items()
]
out.comparison(pd.concat(both, ignore_index=True))

# %% [markdown]
# ## The claims, judged

# %%
out.claims(kit.judge_all(ledgar.claims(), results))

# %% [markdown]
# ## Where this departs from the paper

# %%
out.note(ledgar.deviations(setting))
