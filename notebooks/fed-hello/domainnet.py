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
# # Fed-HeLLo on DomainNet-121: other classes, and other domains
#
# **What the paper claims.** DomainNet shows the same things as photographs, sketches, paintings, clip art, and more.
# Clients differ in the classes that they hold and in the domain that they see a class in. With unequal resources
# Fed-HeLLo should beat the same baselines as on CIFAR-100: Straggler, Exclusive, FedRA, HETLoRA, FlexLoRA. (Zhang,
# Liu, Xu, Hu, IEEE TNNLS 2025. That the data set is in the paper is known to us; its numbers are not.)

# %% tags=["parameters"]
profile: str = "smoke"  # smoke | laptop | small | paper
seeds: int | None = None  # number of reported seeds, from 0; none: the profile's own
device: str = "auto"  # auto | cpu | cuda
output_dir: str = "figures"  # where the results go, relative to the repository
task: str | None = None  # domainnet or digits_domains; or any other in classes and domains
backbone: str | None = None  # such as kit/image-tiny or google/vit-base-patch16-224-in21k
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
import numpy as np
from IPython.display import display

from fedlora_kit import notebook as kit
from fedlora_kit.papers.fed_hello import domainnet, grid
from fedlora_kit.papers.fed_hello import other_data as other

out = kit.begin(domainnet.ITEM, profile, output_dir)
setting = domainnet.setting(
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
# ## The idea, in a few lines
#
# Classes are dealt first: four clients with one of two classes each, so every class has two holders. Then the holders
# of a class share out its two domains, each at least once. So a client sees a class in one domain only.

# %%
toy_classes, toy_domains = np.arange(24) % 2, np.array(["photo", "sketch"])[np.arange(24) // 12]
toy = kit.partitioner("pathological_domains", num_clients=4, classes_per_client=1, seed=1)
for client, part in enumerate(toy.split(toy_classes, groups=toy_domains)):
    print(f"client {client}: class {set(toy_classes[part])}, {set(toy_domains[part])}, {len(part)} examples")

# %% [markdown]
# ## Who holds what
#
# The splits of the runs at seed 0: clients × classes, then clients × domains.

# %%
kind = kit.get_task(setting.task)
cells = grid.cells(setting, other.ROC)
for split in setting.splits:
    spec = next(cell.spec for cell in cells if cell.coords["split"] == split)
    train, _ = kit.load_data(spec.data, spec.model.backbone)
    parts = kit.split_indices(spec, train)
    counts = kit.label_counts(parts, train.labels, kind.num_labels)
    display(kit.partition_figure(counts, kind.label_names, other.words(setting, split)))
    if train.groups is not None:
        by_domain = domainnet.domain_counts(parts, train.groups)
        display(kit.partition_figure(*by_domain, "the same clients by domain", what="domain"))

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
results = kit.results_frame(done)
out.table(results, "results")

# %% [markdown]
# ## The table
#
# Best test accuracy over all rounds in %, on all domains together: mean ± standard deviation over seeds.

# %%
out.table(kit.mean_std_table(results, rows=["method"], column="split", value="accuracy_best"))

# %% [markdown]
# The best of many evaluations on the test part is optimistic. The last round, and the mean of the last ten:

# %%
for value in ("accuracy", "accuracy_last10"):
    display(out.table(kit.mean_std_table(results, rows=["method"], column="split", value=value), value))

# %% [markdown]
# ## Beside the paper
#
# No number of this table is known to us.

# %%
reported = kit.published("fed-hello", "domainnet")
by = ["roc", "split", "method"]
same = setting == domainnet.PROFILES["paper"]
out.comparison(kit.compare(results, reported, by, "best test accuracy %", "accuracy_best", comparable=same))

# %% [markdown]
# ## The claims, judged

# %%
out.claims(kit.judge_all(domainnet.claims(), results))

# %% [markdown]
# ## Where this departs from the paper

# %%
out.note(domainnet.deviations(setting))
