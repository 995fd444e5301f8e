"""Does a device compute what the CPU does, and what the definitions say?"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from acceptance.frame import Bench
from acceptance.worlds import CPU, changed, examples, federation, model_of, narrow, paper_run
from fedlora_kit.adapter import AdapterSlot, State
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.training.evaluation import evaluate
from fedlora_kit.training.federation import Federation, Outcome
from fedlora_kit.training.fisher import fisher_scores
from fedlora_kit.training.objective import batch_losses
from fedlora_kit.training.precision import products
from fedlora_kit.training.rounds import run_federation

TEXT, IMAGE, CAUSAL = "ffa-lora/table1", "fed-hello/table2", "ffa-lora/gsm8k"
#: for comparing two devices: no dropout, whose draws are a device's own; plain steps, which round alike
PLAIN: dict[str, Any] = {"optimizer": "sgd", "lr": 0.5, "momentum": 0.0, "weight_decay": 0.0, "batch_size": 8}
#: the cases of the tiny form
TINY = ("text, unequal stack", "text, FFA-LoRA, DP by rows", "image, Fed-HeLLo", "image, FlexLoRA")


def without_dropout(model: nn.Module) -> nn.Module:
    """The model itself, which drops nothing any more."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for name, value in model.config.to_dict().items():  # type: ignore[union-attr, operator]
        if "drop" in name and isinstance(value, float):
            setattr(model.config, name, 0.0)
    return model


def plain(spec: RunSpec, rounds: int = 1, **parts: Any) -> RunSpec:
    """The run in fp32 without dropout, two small steps a round."""
    lora = spec.model.lora.model_copy(update={"dropout": 0.0})
    local = {**PLAIN, "steps": 2, **parts.pop("local", {})}
    model = {"lora": lora.model_dump(mode="json"), "dtype": "fp32", **parts.pop("model", {})}
    made = changed(spec, local=local, model=model, precision="fp32", **parts)
    return changed(made, rounds={"rounds": rounds, "eval_every": 0}, data={"holdout": 0})


def cases(profile: str) -> dict[str, tuple[RunSpec, tuple[int, ...]]]:
    """Name -> a run, and its clients' examples."""
    text, image = plain(paper_run(TEXT, profile)), plain(paper_run(IMAGE, profile))
    causal = plain(paper_run(CAUSAL, profile), model={"gradient_checkpointing": True})
    private = {"epsilon": None, "sigma": 0.0, "delta": 1e-3, "clip": 0.5, "accountant": "rdp"}

    def by(spec: RunSpec, name: str, **settings: Any) -> RunSpec:
        return changed(spec, method={"name": name, "settings": settings})

    def as_published(name: str, rounds: int = 1) -> RunSpec:
        return plain(paper_run(IMAGE, profile, method_name=name), rounds)

    ffa, server = by(text, "ffa-lora"), {"server_examples": 16}
    equal, unequal = (12, 12, 12), (16, 5, 9)
    return {
        "text, one by one": (changed(text, local={"stack": "never"}), unequal),
        "text, equal stack": (text, equal),
        "text, unequal stack": (text, unequal),
        "text, FFA-LoRA, DP by rows": (changed(ffa, privacy=private), unequal),
        "text, LoRA, DP by hooks": (changed(text, privacy=private, local={"stack": "never"}), unequal),
        "text, FLoRA": (by(changed(text, rounds={"rounds": 2}), "flora"), unequal),
        "text, Ditto": (by(text, "ditto"), unequal),
        "text, FedLoRA-Optimizer": (by(changed(text, data=server), "fedlora-optimizer"), unequal),
        "image, LoRA": (image, unequal),
        "image, Fed-HeLLo": (as_published("fed-hello"), equal),
        "image, FedRA": (as_published("fedra"), equal),
        "image, HETLoRA": (as_published("hetlora", 2), equal),
        "image, FlexLoRA": (as_published("flexlora", 2), unequal),
        "causal, checkpointing": (causal, (4, 3, 5)),
    }


def cpu_is_device(bench: Bench) -> None:
    """One client after the other on the CPU, and as the kit does it on the device."""
    for name, (spec, sizes) in cases(bench.profile).items():
        if bench.tiny and name not in TINY:
            continue
        apart = changed(spec, local={"stack": "never"})
        reference, start = _run(apart, sizes, CPU)
        found, _ = _run(spec, sizes, bench.device)
        keeps = _federation(spec, sizes[:1], CPU).method.keeps_factors
        mine, theirs, begin = (_seen(s, keeps) for s in (found.state, reference.state, start))
        bench.at_most(f"{name}: difference / what training moved", _relative(mine, theirs, begin), 1e-4)
        one, other = found.history[-1], reference.history[-1]
        loss = abs(one["train_loss"] - other["train_loss"]) / max(1.0, abs(other["train_loss"]))
        bench.at_most(f"{name}: loss", loss, 1e-5)
        bench.equal(f"{name}: cohort", one["cohort"], other["cohort"])
    spec = plain(paper_run(IMAGE, bench.profile, method_name="fed-hello"))
    scores = []
    for device in (CPU, bench.device):
        fed = _federation(spec, (8,), device)
        slot = AdapterSlot(fed.model)
        _away_from_zero(slot)
        assert fed.proxy is not None
        scores.append(np.array(fisher_scores(fed.model, slot, fed.proxy.subset(np.arange(8)), device)))
    bench.at_most("Fisher scores, relative", float(np.abs(scores[1] / scores[0] - 1).max()), 1e-3)


def _federation(spec: RunSpec, sizes: tuple[int, ...], device: torch.device) -> Federation:
    shape = narrow(spec)
    model = without_dropout(model_of(spec, device, shape, drawn_on=CPU))
    fed = federation(spec, device, clients=len(sizes), size=max(sizes), model=model, shape=shape)
    parts = [data.subset(np.arange(n)) for data, n in zip(fed.clients, sizes, strict=True)]
    return Federation(**{**vars(fed), "clients": parts})


def _run(spec: RunSpec, sizes: tuple[int, ...], device: torch.device) -> tuple[Outcome, State]:
    fed = _federation(spec, sizes, device)
    start = {n: t.cpu() for n, t in AdapterSlot(fed.model).read().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # delta is no matter here
        outcome = run_federation(fed)
    outcome.state.update({n: t.cpu() for n, t in outcome.state.items()})
    return outcome, start


def _seen(state: Mapping[str, torch.Tensor], factors: bool) -> State:
    """The state itself; or what it adds to each matrix, where A and B are free to turn."""
    if factors:
        return dict(state)
    found: State = {}
    for name, a in state.items():
        if ".lora_A" in name:
            whole = state[name.replace(".lora_A", ".lora_B")] @ a
            found[name] = whole + state.get(name.replace(".lora_A", ".lora_residual"), 0.0)
    return found


def _relative(one: State, other: State, start: State) -> float:
    apart = sum(float((one[n] - other[n]).double().norm() ** 2) for n in other)
    moved = sum(float((other[n] - start[n]).double().norm() ** 2) for n in other)
    return float((apart / moved) ** 0.5) if moved else float("nan")


def _away_from_zero(slot: AdapterSlot) -> None:
    """Random B, the same on every device: at its start B is zero, and A has no gradient."""
    rng = torch.Generator().manual_seed(3)
    drawn = {
        n: 0.02 * torch.randn(p.shape, generator=rng) for n, p in slot.parameters.items() if ".lora_B" in n
    }
    slot.write({**slot.read(), **{n: t.to(slot.parameters[n].device) for n, t in drawn.items()}})


def private(bench: Bench) -> None:
    """Rows and hooks against one backward pass an example; clipped norms; noise."""
    device, base = bench.device, plain(paper_run(TEXT, bench.profile, method_name="ffa-lora"))
    shape = narrow(base)

    def step(
        sigma: float, clip: float, n: int, method: str = "ffa-lora", **parts: Any
    ) -> tuple[Federation, RunSpec]:
        dp = {"epsilon": None, "sigma": sigma, "delta": 1e-3, "clip": clip, "accountant": "rdp"}
        local = {"lr": 1.0, "steps": 1, "batch_size": n, **parts.pop("local", {})}
        spec = changed(base, privacy=dp, local=local, method={"name": method, "settings": {}}, **parts)
        model = without_dropout(model_of(spec, device, shape, drawn_on=CPU))
        return federation(spec, device, clients=2 if sigma else 1, size=n, model=model, shape=shape), spec

    def moved(fed: Federation) -> State:
        start = AdapterSlot(fed.model).read()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            end = run_federation(fed).state
        return {n: start[n] - end[n] for n in end if ".lora_B" in n}

    fed, _ = step(0.0, 1.0, 8)
    slot = AdapterSlot(fed.model)
    slot.set_trainable([n for n in slot.names if ".lora_B" in n])
    each = []
    for i in range(8):  # the definition: one example, one backward pass
        loss = batch_losses(fed.model.train(), fed.clients[0], np.array([i]), device).sum()
        each.append(torch.autograd.grad(loss, [slot.parameters[n] for n in slot.trainable]))
    norms = torch.stack([torch.cat([g.reshape(-1) for g in one]).double().norm() for one in each])
    clip = float(norms.median())  # some are clipped, some are not
    wanted = {
        name: sum(
            one[place] * min(1.0, clip / (float(norm) + 1e-6)) for one, norm in zip(each, norms, strict=True)
        )
        / 8
        for place, name in enumerate(slot.trainable)
    }
    for how, stack in (("rows", "auto"), ("hooks", "never")):
        found = moved(step(0.0, clip, 8, local={"stack": stack})[0])
        zero = {n: torch.zeros_like(t) for n, t in found.items()}
        bench.at_most(f"{how} against one backward pass an example", _relative(found, wanted, zero), 1e-5)  # type: ignore[arg-type]
    small = float(norms.min()) / 100
    for precision in ("fp32", "tf32", "bf16"):
        found = moved(step(0.0, small, 1, precision=precision)[0])
        norm = torch.cat([t.reshape(-1) for t in found.values()]).double().norm()
        bench.at_most(f"{precision}: norm of one clipped example / C", float(norm) / small, 1 + 1e-6)
        bench.at_least(f"{precision}: ... is reached", float(norm) / small, 0.98)
    _noise(bench, step(1.0, 0.01, 1, "local-only")[0])


def _noise(bench: Bench, fed: Federation) -> None:
    """A step whose gradient is next to nothing beside the noise: N(0, (sigma C)^2), each client's own."""
    start = AdapterSlot(fed.model).read()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        personal = run_federation(fed).personal
    drawn = [
        torch.cat([(start[n] - t.to(start[n].device)).reshape(-1) for n, t in personal[k].items()]).double()
        / 0.01
        for k in (0, 1)
    ]
    size = len(drawn[0])
    bench.note("noise: values", size)
    for k, values in enumerate(drawn):
        bench.at_most(
            f"noise of client {k}: |mean| in its errors", abs(float(values.mean())) * size**0.5, 5.0
        )
        off = abs(float(values.var()) - 1) / (2 / size) ** 0.5
        bench.at_most(f"noise of client {k}: variance off 1, in its errors", off, 5.0 + size**-0.5)
    together = float(torch.corrcoef(torch.stack(drawn))[0, 1])
    bench.at_most("two clients' noise: |correlation| in its errors", abs(together) * size**0.5, 5.0)


def rounded(bench: Bench) -> None:
    """bf16 and tf32 against fp32: logits' loss, the adapter's gradient, scores."""
    for name, item in (("text", TEXT), ("image", IMAGE), ("causal", CAUSAL)):
        spec = plain(paper_run(item, bench.profile))
        shape = None if name == "image" and not bench.tiny else narrow(spec)
        model = without_dropout(model_of(spec, bench.device, shape, drawn_on=CPU)).eval()
        slot, data = AdapterSlot(model), examples(spec, 8, shape=shape)
        _away_from_zero(slot)
        found: dict[str, tuple[float, torch.Tensor]] = {}
        for precision in ("fp32", "tf32", "bf16"):
            with products(precision):
                loss = batch_losses(model, data, np.arange(8), bench.device, precision).mean()
                gradients = torch.autograd.grad(
                    loss, [slot.parameters[n] for n in slot.names if ".lora_" in n]
                )
            found[precision] = float(loss.detach()), torch.cat([g.reshape(-1) for g in gradients]).double()
        for precision in ("tf32", "bf16"):
            loss, gradient = found[precision]
            cosine = torch.cosine_similarity(gradient, found["fp32"][1], dim=0)
            bench.at_least(f"{name}, {precision}: cosine of the gradient", float(cosine), 0.99)
            bench.at_most(f"{name}, {precision}: loss, relative", abs(loss / found["fp32"][0] - 1), 0.02)
        if name != "causal":
            scored = [evaluate(model, data, bench.device, 8192, p)["loss"] for p in ("fp32", "bf16")]
            bench.at_most(f"{name}: loss when scored in bf16, relative", abs(scored[1] / scored[0] - 1), 0.02)
            bench.at_least(f"{name}: ... which does round", abs(scored[1] - scored[0]), 1e-9)
