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
# # Fed-HeLLo on instructions: Dolly-15K, Natural Instructions
#
# **What the paper claims.** Clients that can train half, three quarters or all of a language model's layers learn
# together to follow instructions. Fed-HeLLo, which lets each client draw its layers anew in every round and then by
# what the layers' Fisher information says of them, should beat the baselines here, too. (Zhang, Liu, Xu, Hu, IEEE
# TNNLS 2025. That the paper has these data sets is known second-hand; its model, settings and numbers are not.)
#
# **The data.** `fed-hello/dolly`: Databricks-Dolly-15k, 15,011 instructions of eight categories written by people, some
# with a context to work on. `fed-hello/natural_instructions`: Super-NaturalInstructions, tasks with a definition (the
# instruction) and instances; eight tasks of different kinds are the categories. In the `smoke` profile the kit's own
# built-in instructions stand in for both: eight kinds, a response of one to six words each.

# %% tags=["parameters"]
item: str = "fed-hello/dolly"  # or fed-hello/natural_instructions
profile: str = "smoke"  # smoke | laptop | small | paper
seeds: int | None = None  # number of reported seeds, from 0; none: the profile's own
device: str = "auto"  # auto | cpu | cuda
output_dir: str = "figures"  # where the results go, relative to the repository
task: str | None = None  # dolly, natural_instructions or instructions; or any other of answers
backbone: str | None = None  # such as TinyLlama/TinyLlama-1.1B-Chat-v1.0
methods: list[str] | None = None  # straggler, exclusive, fedra, hetlora, flexlora, fed-hello, lora
splits: list[str] | None = None  # iid, cat_2, cat_1 (categories a client)
clients: int | None = None  # clients there are
cohort: int | None = None  # clients drawn a round
rounds: int | None = None  # federated rounds
steps: int | None = None  # AdamW steps a client and round
batch_size: int | None = None  # examples a step
lr: float | None = None  # learning rate of the first round, for all methods
proxy_examples: int | None = None  # training examples set aside for Fisher scores
prompt: str | None = None  # alpaca or plain
dtype: str | None = None  # number format of the base weights: fp32 or bf16
gradient_checkpointing: bool | None = None  # recompute activations: less memory
max_length: int | None = None  # tokens of the longest example; longer ones are left out
max_new_tokens: int | None = None  # tokens that a generated response may have
train_limit: int | None = None  # at most so many training examples
eval_limit: int | None = None  # at most so many scored examples

# %%
import pandas as pd
from IPython.display import display

from fedlora_kit import notebook as kit
from fedlora_kit.data.prompts import template
from fedlora_kit.papers.fed_hello import grid, instructions
from fedlora_kit.papers.fed_hello.instructions_claims import claims, deviations
from fedlora_kit.training.scoring import rouge_l

out = kit.begin(item, profile, output_dir)
data_set = out.name
setting = instructions.setting(
    data_set,
    profile,
    seeds=seeds,
    task=task,
    backbone=backbone,
    methods=methods,
    splits=splits,
    clients=clients,
    cohort=cohort,
    rounds=rounds,
    steps=steps,
    batch_size=batch_size,
    lr=lr,
    proxy_examples=proxy_examples,
    prompt=prompt,
    dtype=dtype,
    gradient_checkpointing=gradient_checkpointing,
    max_length=max_length,
    max_new_tokens=max_new_tokens,
    train_limit=train_limit,
    eval_limit=eval_limit,
)
setting

# %% [markdown]
# ## What is asked, and how an answer is scored
#
# An instruction, with its input if there is one, is put into a template. The model goes on from there, always with
# the likeliest token. The loss counts the response's tokens alone.

# %%
kind = kit.get_task(setting.task)
data = kit.load_task(kind)
*asked, response = (column[0] for column in data.train.columns)
print(template(setting.prompt or kind.prompt).fill(*asked) + response)

# %% [markdown]
# ROUGE-L compares what was answered with the reference: the longest common subsequence of words, as F-measure. It
# gives credit for a response that is right in part:

# %%
shorter = " ".join(response.split()[:-1])
pd.DataFrame(
    {"answer": [response, shorter, ""], "ROUGE-L": rouge_l([response, shorter, ""], [[response]] * 3)}
)

# %% [markdown]
# Nothing is cut: an example that is longer than the limit is left out, and counted here.

# %%
out.table(pd.DataFrame(instructions.lengths(setting)).T.reset_index(names="part"), "lengths")

# %% [markdown]
# ## Who holds what
#
# The splits at seed 0: one row a client, one column a category.

# %%
labels = instructions.train_labels(setting)
for split in setting.splits:
    parts = grid.split_partitioner(setting, split, seed=0).split(labels)
    counts = kit.label_counts(parts, labels, kind.num_labels)
    display(kit.partition_figure(counts, kind.label_names, instructions.WORDS[split]))

# %% [markdown]
# ## Who can afford what
#
# A third of the clients can train half of the layers, a third three quarters, a third all; HETLoRA and FlexLoRA share
# out *ranks* instead.

# %%
for method in setting.methods:
    print(f"{method:10s}", grid.method_settings(setting, method, instructions.ROC))

# %% [markdown]
# ## The runs
#
# Every run starts from the same backbone with an adapter that does nothing yet. What that scores:

# %%
start = instructions.start(setting, device)
start

# %%
done = kit.run_cells(instructions.cells(setting), device=device, label="runs")
results = kit.results_frame(done)
out.table(results, "results")

# %% [markdown]
# ## The table
#
# ROUGE-L on the test part after the last round, ×100: mean ± standard deviation over seeds.

# %%
out.table(kit.mean_std_table(results, rows=["method"], column="split", value="rouge_l"))

# %% [markdown]
# The loss of the reference responses in nats a token (lower is better), and the exact matches in %:

# %%
for value, digits in (("loss", 3), ("accuracy", 2)):
    frame = kit.mean_std_table(results, rows=["method"], column="split", value=value, digits=digits)
    display(out.table(frame, value))

# %% [markdown]
# ## Beside the paper
#
# No number of the paper is known for this data set.

# %%
reported = kit.published(*item.split("/"))
out.comparison(kit.compare(results, reported, ["split", "method"], "ROUGE-L", "rouge_l", comparable=False))

# %% [markdown]
# ## The claims, judged

# %%
out.claims(kit.judge_all(claims(data_set), results))

# %% [markdown]
# ## Where this departs from the paper

# %%
out.note(deviations(data_set, setting))
