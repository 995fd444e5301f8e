"""What a federation must be before its first round: one clear error for each thing that cannot work."""

from __future__ import annotations

from fedlora_kit.adapter import DORA, AdapterSlot
from fedlora_kit.errors import BadValue
from fedlora_kit.training.federation import Federation


def check(fed: Federation) -> None:
    """Refuse a federation that cannot run.

    Raises:
        BadValue: a client without examples; a method without the examples it needs; a cohort larger than the
            federation; something that cannot run under DP.
    """
    empty = [k for k, c in enumerate(fed.clients) if len(c) == 0]
    if empty:
        raise BadValue(
            f"client {empty[0]} has no examples ({len(empty)} of {len(fed.clients)} clients)",
            "use fewer clients, more examples, or a partitioner with a minimum per client",
        )
    if fed.method.proxy_examples and fed.proxy is None:
        raise BadValue(
            f"method {fed.method.name!r} scores layers on proxy examples, and there are none",
            f"set {fed.method.proxy_examples} training examples aside as Federation.proxy",
        )
    if fed.method.server_stage and fed.server is None:
        raise BadValue(
            f"method {fed.method.name!r} trains at the server, and there are no examples there",
            "set data.server_examples (Federation.server), or choose global_data='clients'",
        )
    if fed.rounds.cohort is not None and fed.rounds.cohort > len(fed.clients):
        raise BadValue(
            f"cohort={fed.rounds.cohort}, but there are {len(fed.clients)} clients",
            f"choose a cohort of at most {len(fed.clients)}",
        )
    if fed.held_out and len(fed.held_out) != len(fed.clients):
        raise BadValue(
            f"{len(fed.held_out)} held-out parts for {len(fed.clients)} clients",
            "give one a client (None for none)",
        )
    if fed.privacy is not None:
        _check_private(fed)


def _check_private(fed: Federation) -> None:
    if fed.method.proxy_examples:
        raise BadValue(
            f"method {fed.method.name!r} cannot run under DP: its scores read examples without noise",
            "use rgd-hla, or leave privacy out",
        )
    if fed.method.not_private:
        raise BadValue(
            f"method {fed.method.name!r} cannot run under DP: {fed.method.not_private}",
            "use lora, ffa-lora or fedsa-lora, or leave privacy out",
        )
    if any(DORA in name for name in AdapterSlot(fed.model).names):
        raise BadValue(
            "DoRA cannot run under DP: Opacus' hooks lose its gradients", "set model.lora.use_dora to false"
        )
