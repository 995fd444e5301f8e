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
# # Can you trust an ε? An audit from outside
#
# Ten minutes of reading, well under a minute of running, no network and no GPU.
#
# A run with differential privacy ends with a sentence: *this adapter is (ε, δ)-private*. The number comes from an
# **accountant**: a formula that is told the noise multiplier σ, the sampling rate q and the number of steps T. The
# accountant never looks at the training. If the noise is forgotten, if a gradient escapes the clipping, if the
# batches are not drawn as the formula assumes, it still prints the same ε, the loss still falls, and nothing crashes.
#
# So we ask the question the other way round. We do not read the code; we **attack** the trained adapter and see
# how much it gives away. (ε, δ)-privacy forbids that anybody succeeds too often. An attacker who succeeds more often
# has *refuted* the claim.
#
# The method is the audit in one run of Steinke, Nasr and Jagielski ("Privacy auditing with one (1) training run",
# NeurIPS 2023, arXiv 2305.08846).

# %% tags=["parameters"]
profile: str = "smoke"  # smoke | laptop | small | paper; this lesson is the same in all of them
seeds: int = 3  # number of audits of each trainer, seeds from 0
device: str = "auto"  # auto | cpu | cuda
output_dir: str = "figures"  # where table, figure and claims go, relative to the repository
epsilon: float = 2.0  # what the trainer is asked to keep to, at delta 1e-5
sample_rate: float = 0.1  # q, the probability of an example to be in a step's sample
rounds: int = 40  # T, federated rounds of one step each

# %%
import numpy as np
import pandas as pd

from fedlora_kit import notebook as kit
from fedlora_kit.experiments.placing import tiny_device
from fedlora_kit.papers.lessons import privacy_audit as lesson
from fedlora_kit.papers.lessons import privacy_audit_report as report
from fedlora_kit.privacy.audit import audit, lower_bound, p_value
from fedlora_kit.randomness import checked_seeds

out = kit.begin("lessons/privacy_audit", profile, output_dir)
device = str(tiny_device(device))
setting = lesson.AuditSetting(epsilon=epsilon, sample_rate=sample_rate, rounds=rounds)

# %% [markdown]
# ## 1. A game with coins
#
# Take m examples, the **canaries**. Throw a fair coin for each: heads, it goes into the training data; tails, it stays
# out. Train once. Then look at what the training released and guess as many coins as you like (you may pass on the
# others).
#
# Under ε-privacy with δ = 0, no guess is right with a probability above
#
# $$ p = \frac{e^{\varepsilon}}{1 + e^{\varepsilon}}, $$
#
# which is ½ for ε = 0, 0.73 for ε = 1 and 0.88 for ε = 2. So among r guesses the number of right ones, v, is at
# most as large as the number of heads among r coins that show heads with probability p. If you get many more right than
# that, ε cannot be true. With δ > 0 a small correction is added (Theorem 5.2 of the paper; `p_value` spells it out).
# The smallest ε that your v does *not* refute at 95 % confidence is the **lower bound**:

# %%
m, r = setting.canaries, setting.guesses
pd.DataFrame(
    {
        "right guesses of 512": (counts := [256, 300, 350, 400, 450, 500, 512]),
        "lower bound on ε": [lower_bound(v, r, m, setting.delta) for v in counts],
        "chance of it if ε = 2": [p_value(v, r, m, 2.0, setting.delta) for v in counts],
    }
).round(4)

# %% [markdown]
# (The last column does not fall below 0.0003: that is δ's share. With δ = 0 the last two rows would be below 10⁻¹⁴.)
#
# Half of the guesses right shows nothing. All 512 right refutes every ε below 5.1, and no more than that: with
# finitely many coins one could have been lucky. **A bound of 5.1 does not say that ε is 5.1.** It says that ε is not
# smaller; without noise it is infinite.
#
# ## 2. Canaries that sing loud
#
# A clever attacker chooses canaries that are easy to hear. DP-SGD bounds one thing, the norm of each example's
# gradient, so the worst example is one whose gradient lies in a direction that nobody else uses. We build such
# examples, one for every entry of the adapter's matrix $B$:
#
# * the model is one frozen layer of zeros with a LoRA adapter, trained with FFA-LoRA ($A$ frozen, $B$ trained);
# * canary $(j, y)$ has an input $x_j$ with $A x_j = e_j$ and the label $y$. The gradient of its loss is
#   $(\mathrm{softmax} - \mathrm{onehot}(y))\, e_j^{\top}$: column j of $B$ only, and there almost only entry $(y, j)$;
# * it is ten times longer than the clipping norm C. What arrives is 1 · C, if the clipping works;
# * a canary whose coin says "out" is replaced by an example with gradient 0, so that nothing else changes.
#
# Everything else is the kit's own: `run_federation`, Poisson sampling, clipping, noise, ledger. After each round we
# read the adapter, as the server does. Entry $(y, j)$ has moved by 1 (in units of the clipping norm) if the
# canary was sampled, by 0 if not, plus noise of standard deviation σ.

# %%
one = lesson.audit_trainer("right", setting, seed=0, device=device)
print(f"canaries {m}, of them in the data: {one.included.sum()}")
print(f"claimed by the run: ε = {one.claimed['epsilon']:.3f} at δ = {one.claimed['delta']:g},")
print(
    f"  with σ = {one.claimed['sigma']:.3f}, q = {one.claimed['sample_rate']:.4f}, T = {one.claimed['steps']}"
)
print("what the first 5 rounds show of the first 6 canaries:")
pd.DataFrame(one.shown[:5, :6]).round(2)

# %% [markdown]
# You cannot see in this table who is in. The best thing to do with such numbers is their **likelihood ratio**: how much
# more likely are they if the canary is in the data (a mixture: sampled with probability q) than if it is not? Its
# logarithm, summed over the rounds, is the score of a canary. We guess "in" for the 256 largest scores and "out" for
# the 256 smallest. How many we guess was settled before we looked.

# %%
print(f"right guesses: {one.found.correct} of {one.found.guesses}")
print(f"lower bound on ε: {one.found.epsilon_lower:.2f}; claimed: {one.claimed['epsilon']:.2f}")

# %% [markdown]
# Better than chance: the adapter does give something away, as it may. The bound lies below the claim, so **the audit
# does not refute it**. That is no proof of privacy. It lies far below because the attack sees one run and 1024 coins,
# and because the accountant's ε must hold for every attacker and every data set.
#
# ## 3. Now we break the trainer
#
# Four breaks. Each one exchanges one part of the real trainer and leaves the accounting alone, so that the run goes on
# claiming the same ε (see `lesson.broken`).

# %%
pd.set_option("display.max_colwidth", None)
pd.DataFrame(lesson.TRAINERS.items(), columns=["trainer", "what was done to it"])

# %%
audited = [
    lesson.audit_trainer(trainer, setting, seed=seed, device=device)
    for trainer in lesson.TRAINERS
    for seed in checked_seeds(seeds)
]
results = report.results_table(audited)
out.table(
    results.groupby("trainer", sort=False)
    .agg(
        claimed=("claimed", "max"),
        lowest_bound=("lower", "min"),
        highest_bound=("lower", "max"),
        right_guesses=("correct", "mean"),
        guesses=("guesses", "max"),
        refuted=("refuted", "sum"),
        audits=("seed", "size"),
    )
    .reset_index()
)

# %%
out.figure(
    report.figure(audited),
    caption="Left: scores of the canaries of one run each, put in and left out. Right: the audited lower bounds on ε "
    "at 95 % confidence, beside the claim (dashed); orange where every run refutes it.",
)

# %% [markdown]
# Left: the scores of the canaries of one run each. Where grey and blue lie on top of each other, nobody can tell who
# was in the data. Right: the lower bounds, one dot a seed; orange means that every audit refuted the claim.
#
# * **No noise**: a canary that was sampled once stands out for ever. The few wrong guesses are canaries that are in the
#   data and were never sampled, which has the probability $(1 - q)^T$.
# * **No clipping**: the noise is there, and the canary shouts far louder than it.
# * **Full batches**: noise and clipping are right. But the accountant charges little for a step because an example is in
#   it only with probability q ("amplification by sampling"), and here it is in every step.
# * **Shuffled batches**, the most common mistake of all, is **not caught**. Every example is in exactly one batch of
#   each pass, where the accountant assumes independent draws. The formula does not cover that, so the ε printed has no
#   proof; but this attacker does not know the order of the shuffle, and what it sees is nearly the same as before. An audit
#   finds what it looks for. That the sampling is Poisson must be read in the code, or tested there.

# %%
out.claims(kit.judge_all(report.claims(), results))

# %%
out.note(
    [
        "This lesson belongs to no paper on federated LoRA: model, canaries and setting are the kit's own.",
        "The bound follows the cited paper's Theorem 5.2; its attacks on large networks are not repeated here.",
        "The canaries are replaced by examples without a gradient, not removed, so that q is the same in all runs.",
        "The noise of the kit is drawn from a seeded generator: the audit is of the mechanism, for an attacker who does "
        "not know the seed.",
    ]
)

# %% [markdown]
# ## Exercises
#
# Answer each in a cell of your own first (below the selected cell: press `b`). The solution comes after the question,
# folded: a click on its three dots opens it, and a click on those below it shows what it printed.
#
# **1. How wrong must it be?** Leave part of the noise in (`noise_left=0.5` with the trainer `"no noise"`). From which
# share on does the audit refute the claim? What does that say about an audit that finds nothing?

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
shares = [1.0, 0.5, 0.25, 0.1, 0.0]
quiet = [lesson.audit_trainer("no noise", setting, noise_left=s, device=device) for s in shares]
pd.DataFrame(
    {
        "share of the noise": shares,
        "lower bound": [q.found.epsilon_lower for q in quiet],
        "claimed": [q.claimed["epsilon"] for q in quiet],
        "refuted": [q.refuted for q in quiet],
    }
).round(2)
# Half of the noise costs a lot of privacy (the accountant would say so), and the audit does not see it: it catches gross
# mistakes, not small ones. "Not refuted" is a weak statement.

# %% [markdown]
# **2. How many coins?** Suppose that every guess is right. What is the largest ε that r guesses can refute, for r
# from 16 to 8192? How many do you need to refute ε = 6?

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
many = 2 ** np.arange(4, 14)
pd.DataFrame(
    {"guesses, all right": many, "lower bound": [lower_bound(n, n, n, 0.0) for n in map(int, many)]}
).round(2)
# log(p / (1 - p)) with p = 0.05^(1/r) is about log(r / 3): one more for every factor e. Some 1,200 guesses for ε = 6.

# %% [markdown]
# **3. A weaker attacker** sees only the last adapter, not every round: the sum of a canary's column of `shown`. What
# bound does it get on the right trainer, and on the one without noise? Why is the difference small here, and for which q
# would it be large?

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
rows = []
for trainer in ("right", "no noise"):
    run = lesson.audit_trainer(trainer, setting, device=device)
    last = audit(run.shown.sum(axis=0), run.included, setting.guesses // 2, setting.delta)
    rows.append([trainer, run.found.epsilon_lower, last.epsilon_lower])
pd.DataFrame(rows, columns=["trainer", "bound, every round", "bound, last adapter"]).round(2)
# With σ well above 1 the log-likelihood ratio is nearly linear in what is seen, and a sum of linear terms is the sum
# itself. With a small q and a small σ (try sample_rate=0.01, epsilon=8) a single round in which the canary was sampled
# stands out, and who sees only the sum has buried it under the noise of all the others.

# %% [markdown]
# ## Where to go on
#
# * `notebooks/ffa-lora/table1.ipynb`: what ε costs in accuracy.
# * `fedlora_kit/privacy/audit.py`: the bound; `tests/test_privacy_audit.py`: the bound against exact sums, and these
#   breaks as tests, so that a change of the trainer that loses the noise does not pass.
