"""One DP-SGD step on an adapter (Abadi et al. 2016), with Opacus' hooks and optimiser.

Per-example gradients come from hooks on the modules that train. Opacus asks for this order: model to its
device, LoRA attached, tensors frozen, ``train()``, and only then the hooks; freezing afterwards silently
loses gradients. `PerExampleGradients` therefore remembers what trained when it was made, and refuses to
go on when that has changed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

import torch
from torch import nn

from fedlora_kit.errors import FedloraError

#: per-example losses, shape (b,), of one physical batch
LossOf = Callable[[Any], torch.Tensor]


class PerExampleGradients:
    """Hooks that leave ``p.grad_sample`` of shape (b, \\*p.shape) on every trained parameter.

    The loss that is called ``backward`` on must be a *sum* over examples. Use as a context manager; on
    exit the model is as it was.
    """

    def __init__(self, model: nn.Module) -> None:
        from opacus.grad_sample import GradSampleHooks

        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self._frozen = [p for p in model.parameters() if not p.requires_grad]
        if not self.parameters:
            raise FedloraError("no tensor trains, so there is nothing to make private", "let a tensor train")
        self._model = model
        self._was_training = model.training
        model.train()
        self._hooks = GradSampleHooks(model, loss_reduction="sum", strict=False)
        # torch says so on every backward pass of a frozen embedding; it is how the hooks are meant to run
        warnings.filterwarnings("ignore", message="Full backward hook is firing")

    def check(self) -> None:
        """Refuse to go on if the set of trained tensors is not what the hooks were made for."""
        if not all(p.requires_grad for p in self.parameters) or any(p.requires_grad for p in self._frozen):
            raise FedloraError(
                "tensors were frozen or freed after the per-example hooks were attached",
                "close the hooks, change what trains, attach them anew",
            )

    def backward(self, losses: torch.Tensor) -> None:
        """The backward pass of the sum of ``losses``, (b,), which are those of the last forward pass.

        Raises:
            FedloraError: a module that trains did not see the b examples one by one.
        """
        for name, module in self._model.named_modules():
            for inputs in getattr(module, "activations", ()):
                if len(inputs[0]) != len(losses):
                    problem = f"it reads {len(inputs[0])} rows in a batch of {len(losses)}"
                elif isinstance(module, nn.LayerNorm) and module.bias is None:
                    problem = "Opacus does not know a norm without a bias"
                else:
                    continue
                raise FedloraError(
                    f"no gradient of one example at {name}: {problem}",
                    "adapt other modules (model.lora.targets), or keep the head frozen (model.lora.head)",
                )
        losses.sum().backward()  # type: ignore[no-untyped-call]

    def clear(self) -> None:
        """Forget gradients, per-example gradients and stored activations."""
        for p in self.parameters:
            p.grad = None
            p.grad_sample = None  # type: ignore[attr-defined]
            p.summed_grad = None  # type: ignore[attr-defined]

    def close(self) -> None:
        """Take the hooks off and the extra attributes away."""
        self._hooks.cleanup()
        for p in self.parameters:
            for extra in ("grad_sample", "summed_grad", "_forward_counter", "_current_grad_sample"):
                if hasattr(p, extra):
                    delattr(p, extra)
        self._model.train(self._was_training)

    def __enter__(self) -> PerExampleGradients:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def private_optimizer(
    optimizer: torch.optim.Optimizer,
    *,
    sigma: float,
    clip: float,
    expected_batch_size: float,
    generator: torch.Generator,
) -> Any:
    """Opacus' optimiser around ``optimizer``: clips each example to ``clip``, adds noise, divides.

    Args:
        sigma: noise multiplier.
        clip: C, largest L2 norm of one example's gradient over all trained tensors together.
        expected_batch_size: q * n; the divisor, also for batches of another size.
        generator: source of the noise. Seeded, so that a run can be repeated: good for research, not for
            releasing a model trained on real secrets.
    """
    from opacus.optimizers import DPOptimizer

    return DPOptimizer(
        optimizer,
        noise_multiplier=sigma,
        max_grad_norm=clip,
        expected_batch_size=expected_batch_size,
        loss_reduction="mean",
        generator=generator,
    )


def private_step(
    gradients: PerExampleGradients,
    optimizer: Any,
    batches: Sequence[Any],
    losses: LossOf,
    passes: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> torch.Tensor:
    """One step on one Poisson sample, cut into physical batches (virtual steps).

    An empty sample is a step too: noise only, and it counts for the accountant.

    Args:
        optimizer: from `private_optimizer`.
        batches: the physical batches, in any order; the sum does not depend on it.
        losses: physical batch -> per-example losses.
        passes: gives a context for the forward and the backward pass of each physical batch; clipping, sums
            and noise are outside of it.

    Returns:
        The sum of the examples' losses (0 for an empty sample), a float64 scalar on the model's device; NaN
        or infinite if any loss was, and then the step was of no use.

    Raises:
        FedloraError: a trained tensor got no per-example gradient.
    """
    gradients.check()
    gradients.clear()
    total = torch.zeros((), dtype=torch.float64, device=gradients.parameters[0].device)
    for position, batch in enumerate(batches):
        with passes():
            each = losses(batch)
            gradients.backward(each)
        total = total + each.detach().sum().double()
        lost = sum(getattr(p, "grad_sample", None) is None for p in gradients.parameters)
        if lost:
            raise FedloraError(
                f"{lost} of {len(gradients.parameters)} trained tensors got no per-example gradient",
                "they are not used in the forward pass, or gradient checkpointing bypasses the hooks "
                "(use_reentrant=False does)",
            )
        if position < len(batches) - 1:
            optimizer.signal_skip_step(True)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    if not batches:
        for p in gradients.parameters:
            p.grad_sample = torch.zeros((0, *p.shape), dtype=p.dtype, device=p.device)  # type: ignore[attr-defined]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total
