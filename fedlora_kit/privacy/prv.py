"""The accountant "prv": privacy loss random variables, composed by Opacus (Gopi, Lee and Wutschitz 2021).

Its sigma is some 2 to 17 % below that by RDP. It adds up losses on a grid, and floats end where a small delta
or a large epsilon begins: what it cannot do is refused, before it takes the memory.
"""

from __future__ import annotations

import math

import numpy as np

from fedlora_kit.errors import BadValue
from fedlora_kit.privacy.renyi import History, rdp_epsilon

#: the error that the grid may have, as a share of epsilon by RDP and at most
ACCURACY, COARSEST = 0.01, 0.5
#: cells of the grid, some 300 bytes each at the peak
CELLS = 5_000_000
REMEDY = "use the accountant rdp, which asks for a little more noise"


def prv_epsilon(history: History, delta: float) -> float:
    """An upper bound on the epsilon of a composition of phases; never above that by RDP.

    Raises:
        BadValue: the grid would be too large, or too coarse for its numbers.
    """
    from opacus.accountants.analysis import prv

    upper, _ = rdp_epsilon(history, delta)
    if upper == 0:
        return 0.0
    steps = sum(t for *_, t in history)
    error, delta_error = min(COARSEST, ACCURACY * upper), delta / 1000
    # the losses that matter, and the grid: Gopi et al., remark 5.6 and theorem 5.5
    widest = max(
        rdp_epsilon(history, delta_error / 4)[0],
        *(rdp_epsilon([(s, q, 1)], delta_error / (8 * steps))[0] for s, q, _ in history),
        error,
    )
    reach = widest + 3
    mesh = error / math.sqrt(steps * math.log(12 / delta_error) / 2)
    cells = 2 * reach / mesh
    if cells > CELLS:
        raise BadValue(
            f"the accountant prv would take some {300 * cells / 1e9:.0f} GB of memory "
            f"(epsilon about {upper:.3g}, {steps} steps)",
            REMEDY,
        )
    try:
        with np.errstate(all="ignore"):
            domain = prv.Domain.create_aligned(-reach, reach, mesh)
            parts = [
                prv.TruncatedPrivacyRandomVariable(
                    prv.PoissonSubsampledGaussianPRV(q, s), domain.t_min, domain.t_max
                )
                for s, q, _ in history
            ]
            whole = prv.compose_heterogeneous(
                [prv.discretize(part, domain) for part in parts], [t for *_, t in history]
            )
            found = float(whole.compute_epsilon(delta, delta_error, error)[2])
    except (ValueError, RuntimeError, ArithmeticError, MemoryError) as failure:
        raise BadValue(
            f"the accountant prv fails for an epsilon of about {upper:.3g} ({failure})", REMEDY
        ) from failure
    if not math.isfinite(found):
        raise BadValue(f"the accountant prv finds no number (epsilon about {upper:.3g})", REMEDY)
    return min(upper, max(0.0, found))
