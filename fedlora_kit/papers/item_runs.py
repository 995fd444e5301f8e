"""One function an item: its runs at a profile, as its notebook comes to them from the same parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.papers.fed_hello import curves as fed_hello_curves
from fedlora_kit.papers.fed_hello import domainnet as fed_hello_domainnet
from fedlora_kit.papers.fed_hello import grid as fed_hello_grid
from fedlora_kit.papers.fed_hello import instructions as fed_hello_instructions
from fedlora_kit.papers.fed_hello import ledgar as fed_hello_ledgar
from fedlora_kit.papers.fed_hello import other_data as fed_hello_other_data
from fedlora_kit.papers.fed_hello import proxy as fed_hello_proxy
from fedlora_kit.papers.fed_hello import released as fed_hello_released
from fedlora_kit.papers.fed_hello import schedule as fed_hello_schedule
from fedlora_kit.papers.fed_hello import strategies as fed_hello_strategies
from fedlora_kit.papers.fed_hello import table2 as fed_hello_table2
from fedlora_kit.papers.fedlora_optimizer import ablation as flo_ablation
from fedlora_kit.papers.fedlora_optimizer import choices as flo_choices
from fedlora_kit.papers.fedlora_optimizer import method as flo_method
from fedlora_kit.papers.fedlora_optimizer import preliminary as flo_preliminary
from fedlora_kit.papers.fedlora_optimizer import setting as flo_setting
from fedlora_kit.papers.fedlora_optimizer import tables as flo_tables
from fedlora_kit.papers.ffa_lora import discordance1 as ffa_discordance1
from fedlora_kit.papers.ffa_lora import food101 as ffa_food101
from fedlora_kit.papers.ffa_lora import gsm8k as ffa_gsm8k
from fedlora_kit.papers.ffa_lora import init_of_a as ffa_init_of_a
from fedlora_kit.papers.ffa_lora import table1 as ffa_table1
from fedlora_kit.papers.ffa_lora import table2 as ffa_table2
from fedlora_kit.papers.ffa_lora import table3 as ffa_table3
from fedlora_kit.papers.ffa_lora import table4 as ffa_table4
from fedlora_kit.papers.ffa_lora import table5 as ffa_table5
from fedlora_kit.papers.ffa_lora.experiment import Experiment
from fedlora_kit.papers.lessons import (
    directions_and_magnitudes,
    dp_sgd,
    ffa_lora,
    layer_allocation,
    lora_and_fedavg,
    partitions,
    start_here,
    your_own_method,
)
from fedlora_kit.study.grid import Cell, choose, grid_frame
from fedlora_kit.study.planned import Runs


def _none(why: str) -> Callable[..., Runs]:
    return lambda profile, **_: Runs(note=why)


def _lesson(cells: Callable[[int], list[Cell]], seeds_by_default: int, note: str = "") -> Callable[..., Runs]:
    def runs(profile: str, seeds: int | None = None) -> Runs:
        return Runs(tuple(cells(seeds_by_default if seeds is None else seeds)), note=note)

    return runs


def _start_here(profile: str, seeds: int | None = None) -> Runs:
    cells = [
        Cell({"task": modality, "backbone": weights}, {}, seed, RunSpec.parse(description))
        for modality, weights, seed in start_here.cases(3 if seeds is None else seeds)
        for description in [start_here.description(modality, weights=weights, seed=seed)]
    ]
    return Runs(tuple(cells))


def _tuned(experiment: Experiment) -> Callable[..., Runs]:
    def runs(profile: str, **parameters: Any) -> Runs:
        s = experiment.setting(profile, **parameters)
        return Runs(
            tuple(experiment.grid(s)),
            lambda done: experiment.table(s, choose(grid_frame(done), experiment.by, ["lr", "clip"])),
        )

    return runs


def _every_rate(profile: str, **parameters: Any) -> Runs:
    experiment = ffa_table4.EXPERIMENT
    s = experiment.setting(profile, **parameters)
    return Runs((*experiment.grid(s), *ffa_table4.every_rate(s)))


def _food101(profile: str, **parameters: Any) -> Runs:
    s = ffa_food101.setting(profile, **parameters)
    return Runs(
        tuple(ffa_food101.grid(s)),
        lambda done: ffa_food101.table(s, choose(grid_frame(done), ["eps", "method"], ["lr"])),
    )


def _gsm8k(profile: str, **parameters: Any) -> Runs:
    s = ffa_gsm8k.setting(profile, **parameters)
    return Runs(
        tuple(ffa_gsm8k.grid(s)),
        lambda done: ffa_gsm8k.table(s, choose(ffa_gsm8k.grid_by_loss(done), ["method"], ["lr"])),
    )


def _discordance1(profile: str, **parameters: Any) -> Runs:
    return Runs(tuple(ffa_discordance1.cells(ffa_discordance1.sweep(profile, **parameters))))


def _table2(item: str, roc: str) -> Callable[..., Runs]:
    def runs(profile: str, **parameters: Any) -> Runs:
        s = fed_hello_grid.setting(item, fed_hello_table2.PROFILES, profile, **parameters)
        return Runs(tuple(fed_hello_grid.cells(s, roc)))

    return runs


def _curves(profile: str, **parameters: Any) -> Runs:
    s = fed_hello_grid.setting("fed-hello/curves", fed_hello_curves.PROFILES, profile, **parameters)
    return Runs(tuple(fed_hello_grid.cells(s)))


def _domainnet(profile: str, **parameters: Any) -> Runs:
    s = fed_hello_domainnet.setting(profile, **parameters)
    return Runs(tuple(fed_hello_grid.cells(s, fed_hello_other_data.ROC)))


def _ledgar(profile: str, **parameters: Any) -> Runs:
    s = fed_hello_ledgar.setting(profile, **parameters)
    return Runs(tuple(fed_hello_grid.cells(s, fed_hello_other_data.ROC)))


def _instructions(data_set: str) -> Callable[..., Runs]:
    def runs(profile: str, **parameters: Any) -> Runs:
        s = fed_hello_instructions.setting(data_set, profile, **parameters)
        return Runs(tuple(fed_hello_instructions.cells(s)))

    return runs


def _strategies(profile: str, patterns: Sequence[str] | None = None, **parameters: Any) -> Runs:
    s = fed_hello_strategies.setting(profile, **parameters)
    return Runs(tuple(fed_hello_strategies.cells(s, fed_hello_strategies.chosen_patterns(patterns))))


def _proxy_data(profile: str, sources: Sequence[str] | None = None, **parameters: Any) -> Runs:
    s = fed_hello_proxy.setting(profile, **parameters)
    return Runs(tuple(fed_hello_proxy.cells(s, fed_hello_proxy.chosen_sources(sources))))


def _fim_schedule(profile: str, shares: Sequence[float] | None = None, **parameters: Any) -> Runs:
    s = fed_hello_schedule.setting(profile, **parameters)
    return Runs(tuple(fed_hello_schedule.cells(s, fed_hello_schedule.chosen_shares(shares))))


def _released(profile: str, variants: Sequence[str] | None = None, **parameters: Any) -> Runs:
    s = fed_hello_released.setting(profile, **parameters)
    return Runs(tuple(fed_hello_released.cells(s, fed_hello_released.chosen_variants(variants))))


def _preliminary(profile: str, points: Sequence[int] | None = None, **parameters: Any) -> Runs:
    s = flo_preliminary.setting(profile, **parameters)
    planned = flo_preliminary.specs(s, flo_preliminary.points(profile, points))
    return Runs(tuple(Cell({"steps": str(steps)}, {}, seed, spec) for seed, steps, spec in planned))


def _method(profile: str, axis: str = "rank", **parameters: Any) -> Runs:
    return Runs(
        tuple(flo_method.cells(flo_setting.setting("fedlora-optimizer/method", profile, **parameters), axis)),
        note="the notebook also trains a few single rounds of its own, which are not kept in the store",
    )


def _flo_table(item: str) -> Callable[..., Runs]:
    return lambda profile, **p: Runs(tuple(flo_tables.cells(flo_tables.setting(item, profile, **p))))


def _ablation(profile: str, grid: str | None = None, **parameters: Any) -> Runs:
    s = flo_ablation.setting("fedlora-optimizer/ablation", profile, **parameters)
    return Runs(tuple(flo_ablation.cells(s, flo_ablation.pairs(profile, grid))))


def _open_choices(profile: str, choices: Sequence[str] | None = None, **parameters: Any) -> Runs:
    s = flo_ablation.setting("fedlora-optimizer/open_choices", profile, **parameters)
    return Runs(tuple(flo_choices.cells(s, flo_choices.variants(s, choices))))


#: item -> (profile, **parameters) -> its runs
RUNS: dict[str, Callable[..., Runs]] = {
    "start_here": _start_here,
    "lessons/lora_and_fedavg": _lesson(lora_and_fedavg.cells, 4),
    "lessons/partitions": _lesson(partitions.cells, 3),
    "lessons/ffa_lora": _lesson(ffa_lora.cells, 3),
    "lessons/dp_sgd": _lesson(dp_sgd.cells, 3),
    "lessons/privacy_audit": _none("audits trainers in the notebook; trains nothing that is stored"),
    "lessons/layer_allocation": _lesson(layer_allocation.cells, 3),
    "lessons/directions_and_magnitudes": _lesson(directions_and_magnitudes.cells, 3),
    "lessons/at_scale": _none("trains a few runs in stores of its own; trains nothing that is kept"),
    "lessons/your_own_method": _lesson(
        your_own_method.cells, 3, "the notebook also trains runs of a method that only it knows"
    ),
    "ffa-lora/figure1": _none("draws noise in the notebook; trains nothing"),
    "ffa-lora/table1": _tuned(ffa_table1.EXPERIMENT),
    "ffa-lora/table2": _tuned(ffa_table2.EXPERIMENT),
    "ffa-lora/table3": _tuned(ffa_table3.EXPERIMENT),
    "ffa-lora/table4": _every_rate,
    "ffa-lora/table5": _tuned(ffa_table5.EXPERIMENT),
    "ffa-lora/alpha": _every_rate,
    "ffa-lora/init_of_a": _tuned(ffa_init_of_a.EXPERIMENT),
    "ffa-lora/discordance1": _discordance1,
    "ffa-lora/gsm8k": _gsm8k,
    "ffa-lora/food101": _food101,
    "fed-hello/table2": _table2("fed-hello/table2", "1:1:1"),
    "fed-hello/table2_roc631": _table2("fed-hello/table2_roc631", "6:3:1"),
    "fed-hello/domainnet": _domainnet,
    "fed-hello/ledgar": _ledgar,
    "fed-hello/natural_instructions": _instructions("natural_instructions"),
    "fed-hello/dolly": _instructions("dolly"),
    "fed-hello/patterns": _none("draws allocations in the notebook; trains nothing"),
    "fed-hello/strategies": _strategies,
    "fed-hello/proxy_data": _proxy_data,
    "fed-hello/fim_schedule": _fim_schedule,
    "fed-hello/curves": _curves,
    "fed-hello/resources": _none("counts on shapes in the notebook; trains nothing"),
    "fed-hello/released_vs_described": _released,
    "fedlora-optimizer/preliminary": _preliminary,
    "fedlora-optimizer/method": _method,
    "fedlora-optimizer/global": _flo_table("fedlora-optimizer/global"),
    "fedlora-optimizer/local": _flo_table("fedlora-optimizer/local"),
    "fedlora-optimizer/ablation": _ablation,
    "fedlora-optimizer/open_choices": _open_choices,
}
