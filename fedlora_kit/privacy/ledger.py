"""The privacy ledger of a run: what each client has spent so far, composed over all rounds.

One accountant a client for the whole run. A new accountant a round would report the epsilon of one round
for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.privacy.noise import epsilon_of_history


class Ledger:
    """Noisy steps taken by each of ``num_clients`` clients.

    Args:
        num_clients: clients of the federation, also those that never train.
        delta: the delta that epsilon is reported at.
        accountant: "rdp" or "prv".
    """

    def __init__(self, num_clients: int, delta: float, accountant: str = "rdp") -> None:
        self.delta = delta
        self.accountant = accountant
        self._spent: list[list[tuple[float, float, int]]] = [[] for _ in range(num_clients)]

    def record(self, client: int, sigma: float, sample_rate: float, steps: int) -> None:
        """Client ``client`` took ``steps`` more steps, also those on an empty batch."""
        if steps == 0:
            return
        phases = self._spent[client]
        if phases and phases[-1][:2] == (sigma, sample_rate):
            phases[-1] = (sigma, sample_rate, phases[-1][2] + steps)
        else:
            phases.append((sigma, sample_rate, steps))

    def steps(self, client: int) -> int:
        """Steps that the client has taken in all."""
        return sum(steps for _, _, steps in self._spent[client])

    def epsilon(self, client: int) -> float:
        """What the client has spent so far; by "rdp", which is never too little, where "prv" fails."""
        history = tuple(self._spent[client])
        try:
            return epsilon_of_history(history, self.delta, self.accountant)
        except BadValue:
            return epsilon_of_history(history, self.delta)

    def largest_epsilon(self) -> float:
        """The largest epsilon of any client: what the run as a whole can promise each client."""
        return max((self.epsilon(k) for k in range(len(self._spent))), default=0.0)

    def report(self) -> dict[str, Any]:
        """The ledger for the store: largest epsilon, delta, sampling, and one row a client."""
        return {
            "epsilon": self.largest_epsilon(),
            "delta": self.delta,
            "accountant": self.accountant,
            "sampling": "poisson",
            "unit": "example",
            "clients": [
                {
                    "client": k,
                    "epsilon": self.epsilon(k),
                    "steps": self.steps(k),
                    "phases": [list(p) for p in phases],
                }
                for k, phases in enumerate(self._spent)
            ],
        }

    def state(self) -> list[list[list[float]]]:
        """Plain data for a checkpoint."""
        return [[list(p) for p in phases] for phases in self._spent]

    def restore(self, state: Sequence[Sequence[Sequence[float]]]) -> None:
        """Take back what `state` gave."""
        if len(state) != len(self._spent):
            raise FedloraError(
                f"the checkpoint's ledger has {len(state)} clients, the run {len(self._spent)}",
                "the checkpoint belongs to another run; set it aside",
            )
        self._spent = [[(float(s), float(q), int(t)) for s, q, t in phases] for phases in state]
