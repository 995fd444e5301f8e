"""DP-SGD for several clients at once: the examples' gradients are rows, and each row knows its client.

The same sums and noise as `privacy.dpsgd` client after client; Opacus draws the noise there and here, from
the same generators in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def clipped_sums(
    gradients: torch.Tensor, owners: torch.Tensor, clips: torch.Tensor, clients: int
) -> torch.Tensor:
    """Each client's sum of its examples' gradients, every example clipped on its own.

    Args:
        gradients: (R, D) one example's gradient a row, all its tensors side by side.
        owners: int64 (R,) position of the example's client.
        clips: (K,) the clients' clipping norms C.
        clients: K.

    Returns:
        (K, D); zeros for a client without examples.

    >>> clipped_sums(torch.tensor([[3.0, 4.0], [0.3, 0.4]]), torch.tensor([1, 1]), torch.ones(2), 2)
    tensor([[0.0000, 0.0000],
            [0.9000, 1.2000]])
    """
    norms = gradients.norm(2, dim=1)  # (R,)
    factors = (clips[owners] / (norms + 1e-6)).clamp(max=1.0)  # as Opacus
    weights = gradients.new_zeros(clients, len(owners))  # (K, R)
    weights[owners, torch.arange(len(owners), device=owners.device)] = factors
    return weights @ gradients


def draw_noise(
    std: float, shapes: Sequence[torch.Size], generator: torch.Generator, like: torch.Tensor
) -> list[torch.Tensor]:
    """One client's noise for one step, a tensor a shape, drawn by Opacus in this order.

    Args:
        std: sigma times C; 0 draws nothing and gives zeros.
        like: its type and device are taken.
    """
    from opacus.optimizers.optimizer import _generate_noise

    return [_generate_noise(std, like.new_empty(shape), generator) for shape in shapes]
