"""The lesson that checks the DP trainer from outside: canaries through real federated runs, right and broken.

The run is `training.rounds.run_federation` with one client, FFA-LoRA and the kit's own DP-SGD. Only the
model and the data are made for the audit: on a frozen linear layer of zeros, the loss of canary (j, y) has a
gradient that falls on column j of B, nearly all of it on the entry (y, j). Every canary therefore has a
coordinate of its own (a "Dirac canary"), and what a round adds to that coordinate, in units of the clipping
norm, is 1 or 0 for the sample, plus noise. A canary that the coin leaves out is replaced by an example
whose gradient is 0, so that the number of examples, and with it q, does not depend on the coins.

The attacker sees the adapter after every round: the strongest view that DP-SGD's accounting allows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.data.batches import shuffled_batches
from fedlora_kit.data.encoded import EncodedImages
from fedlora_kit.errors import UnknownName
from fedlora_kit.methods import method
from fedlora_kit.privacy.audit import Audit, audit, log_likelihood_ratio
from fedlora_kit.privacy.dpsgd import private_optimizer
from fedlora_kit.privacy.settings import PrivacySettings
from fedlora_kit.privacy.stacked import clipped_sums, draw_noise
from fedlora_kit.randomness import Streams
from fedlora_kit.study.planned import Runs
from fedlora_kit.training import local as local_module
from fedlora_kit.training import stacked as stacked_module
from fedlora_kit.training.federation import Federation, Snapshot
from fedlora_kit.training.rounds import run_federation
from fedlora_kit.training.settings import FederationSettings, LocalSettings

#: trainer -> what was done to it; every break leaves the accounting as it is
TRAINERS = {
    "right": "nothing",
    "no noise": "the noise has standard deviation 0",
    "no clipping": "examples' gradients are summed as they are",
    "full batches": "every step takes every example, where the accountant assumes Poisson samples",
    "shuffled batches": "fixed-size batches of a shuffled pass over the data, accounted as Poisson samples",
}
#: the breaks that the audit must find in the lesson's setting
MUST_BE_FOUND = ("no noise", "no clipping", "full batches")


@dataclass(frozen=True)
class AuditSetting:
    """An audit of one run.

    Attributes:
        rank, classes: the model; there are m = rank * classes canaries, one for each entry of B.
        loudness: norm of a canary's gradient before clipping, in clipping norms.
        epsilon, delta: what the trainer is asked to keep to.
        sample_rate: q.
        rounds: T, of one step each.
        guesses: coins guessed, half of them "in" and half "out".
        stack: which of the two trainers: "never" for `training.local` (Opacus' hooks), "always" for
            `training.stacked`.
        lr: learning rate; small, so that the canaries' gradients stay what they are.
    """

    rank: int = 16
    classes: int = 64
    loudness: float = 10.0
    epsilon: float = 2.0
    delta: float = 1e-5
    clip: float = 1.0
    sample_rate: float = 0.1
    rounds: int = 40
    guesses: int = 512
    confidence: float = 0.95
    stack: Literal["never", "always"] = "never"
    lr: float = 1e-3

    @property
    def canaries(self) -> int:
        """m."""
        return self.rank * self.classes


@dataclass(frozen=True)
class Audited:
    """One audited run.

    Attributes:
        claimed: the run's own privacy report.
        found: the audit's bound.
        shown: (T, m), what every round showed of every canary, in clipping norms; see `log_likelihood_ratio`.
        scores: (m,), log-likelihood ratios of "in" to "out" under the claimed sigma and q.
        included: (m,), how the coins fell.
    """

    trainer: str
    seed: int
    claimed: dict[str, Any]
    found: Audit
    shown: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    included: npt.NDArray[np.bool_]

    @property
    def refuted(self) -> bool:
        """Whether the bound lies above the claimed epsilon."""
        return bool(self.found.epsilon_lower > self.claimed["epsilon"])


class CanaryModel(nn.Module):
    """One frozen linear layer of zeros, (width,) -> (classes,): all that it says comes from the adapter."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.probe = nn.Linear(width, classes, bias=False)
        nn.init.zeros_(self.probe.weight)

    def forward(self, pixel_values: torch.Tensor) -> Any:
        """Logits, (b, classes), of inputs (b, 1, 1, width)."""
        from transformers.modeling_outputs import ImageClassifierOutput

        return ImageClassifierOutput(logits=self.probe(pixel_values.flatten(1)))


def canary_federation(setting: AuditSetting, seed: int, device: str = "cpu") -> tuple[Federation, Any]:
    """A federation of one client whose examples are the canaries, and the coins, bool (m,)."""
    from peft import LoraConfig, get_peft_model

    streams = Streams(seed)
    width = 2 * setting.rank
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(streams.seed("init", "lora"))
        config = LoraConfig(r=setting.rank, lora_alpha=setting.rank, target_modules=["probe"])
        model = get_peft_model(CanaryModel(width, setting.classes), config)  # type: ignore[arg-type]
    slot = AdapterSlot(model)
    (a,) = (t for n, t in slot.read().items() if ".lora_A" in n)  # (rank, width)
    # A x_j = e_j: the gradient of B is then (softmax - onehot(y)) e_j^T, of norm sqrt(1 - 1/classes)
    reach = torch.linalg.pinv(a.double()).T.float()  # (rank, width), row j is x_j
    norm = (1 - 1 / setting.classes) ** 0.5
    column, label = np.divmod(np.arange(setting.canaries), setting.classes)
    inputs = reach[torch.from_numpy(column)] * (setting.loudness * setting.clip / norm)  # (m, width)
    included = streams.generator("subset", "coins").random(setting.canaries) < 0.5
    inputs[torch.from_numpy(~included)] = 0.0  # an example without any gradient takes its place
    examples = EncodedImages(inputs.reshape(-1, 1, 1, width), label.astype(np.int64))
    federation = Federation(
        model=model.to(device),
        method=method("ffa-lora"),
        clients=[examples],
        evals={"canaries": examples.subset(np.arange(8))},
        rounds=FederationSettings(rounds=setting.rounds, eval_every=0),
        local=LocalSettings(
            lr=setting.lr,
            steps=1,
            batch_size=max(1, round(setting.sample_rate * setting.canaries)),
            stack=setting.stack,
        ),
        streams=streams,
        privacy=PrivacySettings(epsilon=setting.epsilon, delta=setting.delta, clip=setting.clip),
        device=torch.device(device),
    )
    return federation, included


def audit_trainer(
    trainer: str = "right",
    setting: AuditSetting | None = None,
    *,
    seed: int = 0,
    device: str = "cpu",
    noise_left: float = 0.0,
) -> Audited:
    """Run the trainer once and bound its epsilon from below.

    Args:
        trainer: one of `TRAINERS`.
        noise_left: what "no noise" leaves of the standard deviation, as a share.

    Raises:
        UnknownName: no such trainer.
    """
    setting = setting or AuditSetting()
    federation, included = canary_federation(setting, seed, device)
    (name,) = (n for n in AdapterSlot(federation.model).names if ".lora_B" in n)
    seen = [AdapterSlot(federation.model).read()[name].cpu()]

    def look(now: Snapshot) -> None:
        seen.append(now.state[name].cpu().clone())

    with broken(trainer, noise_left):
        outcome = run_federation(federation, save=look)
    assert outcome.privacy is not None
    claimed = outcome.privacy
    steps = torch.stack(seen).double().diff(dim=0)  # (T, classes, rank): what each round added
    unit = setting.lr * setting.clip / (claimed["sample_rate"] * setting.canaries)
    shown = (steps / unit).transpose(1, 2).reshape(setting.rounds, -1).numpy()  # (T, m)
    scores = log_likelihood_ratio(shown, claimed["sigma"], claimed["sample_rate"])
    found = audit(scores, included, setting.guesses // 2, claimed["delta"], setting.confidence)
    return Audited(trainer, seed, claimed, found, shown, scores, included)


@contextmanager
def broken(trainer: str, noise_left: float = 0.0) -> Iterator[None]:
    """The kit's trainers with one part exchanged, inside the block; the accounting stays as it is.

    Raises:
        UnknownName: no such trainer.
    """
    if trainer not in TRAINERS:
        raise UnknownName("trainer", trainer, TRAINERS)
    private, sums, noise = private_optimizer, clipped_sums, draw_noise
    wide = 1e6

    def silent(optimizer: Any, **named: Any) -> Any:
        return private(optimizer, **{**named, "sigma": named["sigma"] * noise_left})

    def unclipped(optimizer: Any, **named: Any) -> Any:  # as much noise as before, and no example cut
        changed = {"clip": named["clip"] * wide, "sigma": named["sigma"] / wide}
        return private(optimizer, **{**named, **changed})

    def everybody(n: int, rate: float, steps: int, seed: int) -> Any:
        return iter([np.arange(n)] * steps)

    order: dict[int, Any] = {}  # examples -> batches, pass after pass, over all rounds

    def passes(n: int, rate: float, steps: int, seed: int) -> Any:
        rng = np.random.default_rng(seed)
        batches = order.setdefault(n, shuffled_batches(n, max(1, round(rate * n)), 10**6, rng))
        return islice(batches, steps)

    changes: dict[str, list[tuple[Any, str, Any]]] = {
        "right": [],
        "no noise": [
            (local_module, "private_optimizer", silent),
            (stacked_module, "draw_noise", lambda std, *rest: noise(std * noise_left, *rest)),
        ],
        "no clipping": [
            (local_module, "private_optimizer", unclipped),
            (stacked_module, "clipped_sums", lambda g, o, c, k: sums(g, o, c * wide, k)),
        ],
        "full batches": [(local_module, "poisson_batches", everybody)],
        "shuffled batches": [(local_module, "poisson_batches", passes)],
    }
    with ExitStack() as stack:
        for module, name, new in changes[trainer]:
            stack.enter_context(mock.patch.object(module, name, new))
        yield


def runs(profile: str, **parameters: Any) -> Runs:
    """None that are stored."""
    return Runs(note="audits trainers in the notebook; trains nothing that is stored")
