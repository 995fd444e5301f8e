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
# # FFA-LoRA, section 5.3: a language model that answers word problems
#
# **What the paper claims.** Beyond classifiers, FFA-LoRA also works on a generating model: LLaMA-7B, fine-tuned
# over clients on GSM8K (grade-school word problems), without differential privacy, answers 17.12 % of the
# questions right with FFA-LoRA and 15.68 % with LoRA, with half the parameters trained and sent. Two numbers and
# one sentence; prompt, schedule and number of runs are not given. (Sun, Li, Li, Ding, ICLR 2024.)
#
# The `paper` profile is LLaMA-7B with the federation that FederatedScope-LLM declares for GSM8K; `small` is
# TinyLlama on a part of it. The `smoke` profile keeps the experiment's structure with a Llama of 0.4 M parameters,
# pre-trained by the kit, and built-in word problems: **its figures say whether the machinery works; they cannot
# be compared with the paper's.**

# %% tags=["parameters"]
profile: str = "smoke"  # smoke | laptop | small | paper
seeds: int | None = None  # number of reported seeds, from 0; none: the profile's own
device: str = "auto"  # auto | cpu | cuda
output_dir: str = "figures"  # where the table goes, relative to the repository
tasks: list[str] | None = None  # gsm8k or arithmetic (its stand-in), or any other of answers; one of them
methods: list[str] | None = None  # lora, ffa-lora, or any other registered one
backbone: str | None = None  # such as TinyLlama/TinyLlama-1.1B-Chat-v1.0 or huggyllama/llama-7b
prompt: str | None = None  # template around the question, alpaca or plain
rounds: int | None = None  # federated rounds
steps: int | None = None  # local steps a round
batch_size: int | None = None  # examples a step at each client
rates: list[float] | None = None  # learning-rate grid, for all methods
holdout: int | None = None  # training examples set aside for choosing from the grid
train_limit: int | None = None  # at most so many training examples
eval_limit: int | None = None  # at most so many scored questions
max_length: int | None = None  # tokens of the longest example
max_new_tokens: int | None = None  # tokens that a generated answer may have
dtype: str | None = None  # number format of the frozen base weights, fp32 or bf16
load_in_4bit: bool | None = None  # quantise the base weights; needs a GPU and bitsandbytes

# %%
import numpy as np
import pandas as pd
import torch

from fedlora_kit import notebook as kit
from fedlora_kit.data.prompts import final_number, template
from fedlora_kit.papers.ffa_lora import gsm8k
from fedlora_kit.papers.ffa_lora import gsm8k_claims as said
from fedlora_kit.papers.ffa_lora.gsm8k_answers import side_by_side, untrained

out = kit.begin("ffa-lora/gsm8k", profile, output_dir)
setting = gsm8k.setting(
    profile,
    seeds=seeds,
    tasks=tasks,
    methods=methods,
    backbone=backbone,
    prompt=prompt,
    rounds=rounds,
    steps=steps,
    batch_size=batch_size,
    rates=rates,
    holdout=holdout,
    train_limit=train_limit,
    eval_limit=eval_limit,
    max_length=max_length,
    max_new_tokens=max_new_tokens,
    dtype=dtype,
    load_in_4bit=load_in_4bit,
)
setting

# %% [markdown]
# ## The idea in a few lines
#
# **1. The prompt.** A question is put into a template; the model goes on from its last token.

# %%
task = kit.get_task(setting.tasks[0])
question, answer = (column[0] for column in kit.load_task(task).train.columns)
print(template(setting.prompt).fill(question))
print(answer)

# %% [markdown]
# **2. The loss counts the answer only.** Tokens are predicted one by one, each from all before it. The prompt is
# given, so its tokens are masked out (label −100); what is learned is to answer. The loss of an example is the
# mean over *its own* answer, so a long answer weighs as much as a short one, and so one example has one gradient.

# %%
first = gsm8k.cell(setting, "lora", 0, 1.0)
train, scored = kit.load_data(first.spec.data, setting.backbone)
inputs, labels = train.batch(np.array([0]), torch.device("cpu"))  # both (1, tokens)
pd.DataFrame(
    {
        "token": train.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0].tolist()),
        "counts in the loss": (labels[0] >= 0).tolist(),
    }
).iloc[max(0, train.prompt_lengths[0] - 4) : train.prompt_lengths[0] + 8]

# %% [markdown]
# **3. The rule.** The model then answers questions it has not seen, word by word, always with the likeliest next
# token. The answer is right if the number after `####` and a blank is the reference's, compared as text without
# commas, as GSM8K's own script does: *exact match*. The working is not looked at, and an answer without `####` is
# wrong, however good it is; so is "1080.0" where "1080" is asked for.

# %%
for text in (answer, "48+24=72, so the answer is 72", "#### 1,080", "#### 1080.0"):
    print(repr(text[-40:]).rjust(44), "->", final_number(text))

# %% [markdown]
# **4. The federation.** As for classifiers: LoRA's clients train and send $A$ and $B$; FFA-LoRA's all keep the same
# random $A_0$ and send $B$ alone. There is no classification head; the model's own output layer stays frozen.
#
# ## Who holds what
#
# Questions have no classes, so they are dealt at random in equal parts.

# %%
parts = kit.split_indices(first.spec, train)
counts = kit.label_counts(parts, train.labels, task.num_labels)
kit.partition_figure(counts, ("questions",), f"{task.name}: i.i.d.")

# %% [markdown]
# ## The grid
#
# The learning rate is chosen for each method by a declared rule: the lowest loss of answers held out of the
# *training* split, at a seed that is not reported. The scored split is never looked at for this.

# %%
searched = kit.run_cells(gsm8k.grid(setting), device=device, label="grid")
grid = gsm8k.grid_by_loss(searched)
out.table(grid, "grid")
chosen = kit.choose(grid, by=["method"], tuned=["lr"])
out.table(chosen, "chosen")

# %% [markdown]
# ## The runs

# %%
done = kit.run_cells(gsm8k.table(setting, chosen), device=device, label="gsm8k")
results = gsm8k.results(done)
out.table(results, "results")
results.groupby(["method"], sort=False)[["trained_parameters", "sent_bytes"]].first()

# %% [markdown]
# ## The table
#
# Exact match in % on the scored questions after the last round, and beside it the loss of their reference answers
# (nats a token): a small model may answer nothing right and still come closer to the answers. Mean ± standard
# deviation over seeds; the first line is the backbone before any round, where every run begins.

# %%
before = untrained(first, device)
start = {"method": "before any round", "exact match %": f"{100 * before['accuracy']:.2f}"}
start["answer loss"] = f"{before['loss']:.3f}"
columns = {"accuracy": "exact match %", "answer_loss": "answer loss"}
shown = [
    kit.mean_std_table(
        results.assign(metric=name), rows=["method"], column="metric", value=value, digits=digits
    )
    for (value, name), digits in zip(columns.items(), (2, 3), strict=True)
]
table = pd.concat([pd.DataFrame([start]), shown[0].merge(shown[1], on="method")], ignore_index=True)
out.table(table)

# %% [markdown]
# ## Several answers side by side
#
# The first scored questions, answered by the stored adapters of each method's first seed.

# %%
answers, right = side_by_side(done, n=4, device=device)
out.table(answers.assign(right=right), "answers")
for row, who in zip(answers.to_dict("records"), right, strict=True):
    print("-" * 100)
    for name, text in row.items():
        print(f"{name.upper()}:\n{text}\n")
    print("RIGHT:", who)

# %% [markdown]
# ## Beside the paper
#
# The two published figures are LLaMA-7B's. They are set beside those of this run's own model, which is another in
# every profile but `paper`; `comparable` is true only in that profile's own setting.

# %%
reported = kit.published("ffa-lora", "gsm8k")
reported["cell"] = reported["cell"].str.replace(f"|model={gsm8k.PUBLISHED_MODEL}", "")
comparison = kit.compare(
    results,
    reported,
    ["method"],
    "accuracy %",
    "accuracy",
    comparable=setting == gsm8k.PROFILES["paper"],
)
out.comparison(comparison)

# %% [markdown]
# ## The claims, judged

# %%
out.claims(kit.judge_all(said.claims(), results))

# %%
out.note(said.deviations(profile, setting))
