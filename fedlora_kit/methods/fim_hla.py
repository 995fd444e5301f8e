"""FIM-HLA: layers are drawn by their importance, read off the diagonal of the Fisher information."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedlora_kit.methods.allocation import Probabilities, importance_probabilities
from fedlora_kit.methods.base import Context, register
from fedlora_kit.methods.defects import AS_RELEASED, FORGET_SCORES, SCORE_ONE_LOGIT, UNORDERED_LEVELS
from fedlora_kit.methods.resources import Resources
from fedlora_kit.methods.rgd_hla import RGDHLA
from fedlora_kit.partition.base import choice, whole

PROXIES = ("random", "balanced", "external")


@register
class FIMHLA(RGDHLA):
    """Fisher-information layer allocation (Fed-HeLLo's FIM-HLA).

    A layer's score is the diagonal Fisher information of its LoRA tensors on proxy examples that are set
    aside (`training.fisher`). Clustered into importance levels, a higher level is drawn with a higher
    probability, until the next refresh. As the text describes it: all examples count, the clusters are
    ordered, and the probabilities stay. (The released code scores one image, leaves the clusters in no order
    and forgets the result after one round, so that it is RGD-HLA nearly all the time: see ``defects``.)

    Args:
        resources: see `LayerMethod`.
        pattern: of the warm start, before the first scores.
        start: first round with scores, counted from 0.
        every: rounds from one refresh to the next.
        levels: importance levels.
        proxy_examples: examples that the scores come from; no client trains on them.
        proxy: "random": drawn from the training examples and set aside; "balanced": the same, equally many of
            each class; "external": the task's own set of examples that no client holds (`Task.external`).
        defects: of the released code, to be switched on (see `defects`); none by default.

    Raises:
        UnknownName: no such pattern, defect or source of proxy examples.
        BadValue: an impossible setting.
    """

    name = "fim-hla"
    title = "FIM-HLA"
    source = "Fed-HeLLo (arXiv 2506.12213); released engine `depthffm_fim`"
    possible_defects = AS_RELEASED

    def __init__(
        self,
        resources: Resources | Mapping[str, Any] | None = None,
        pattern: str = "uniform",
        start: int = 0,
        every: int = 50,
        levels: int = 3,
        proxy_examples: int = 100,
        defects: Sequence[str] = (),
        proxy: str = "random",
    ) -> None:
        super().__init__(resources, pattern, defects)
        self.score_one_logit = SCORE_ONE_LOGIT in self.defects
        self.start = whole("start", start, least=0)
        self.every = whole("every", every, least=1)
        self.levels = whole("levels", levels, least=1)
        # where everybody trains everything, there is nothing to choose and nothing to score
        self.proxy_examples = 0 if self.resources.equal else whole("proxy_examples", proxy_examples, least=1)
        self.proxy = choice(f"proxy examples of method {self.name!r}", proxy, PROXIES)
        self._found: Probabilities | None = None
        self._found_in = -1

    def bind(self, context: Context) -> None:
        super().bind(context)
        self._found = None

    def refreshes(self, round_index: int) -> bool:
        since = round_index - self.start
        return self.proxy_examples > 0 and since >= 0 and since % self.every == 0

    def refresh(self, scores: Sequence[float], round_index: int) -> None:
        disorder = None
        if UNORDERED_LEVELS in self.defects:
            disorder = self.context.streams.generator("allocation", "levels", round_index)
        self._found = importance_probabilities(scores, self.levels, disorder)
        self._found_in = round_index

    def probabilities(self, round_index: int) -> Probabilities:
        forgotten = FORGET_SCORES in self.defects and round_index != self._found_in
        return super().probabilities(round_index) if self._found is None or forgotten else self._found
