"""Every table, figure and lesson of the kit, by id.

What the labels in ``foundation`` mean: SEEN: read in a source that quotes the paper, or in its authors' code
or logs; SECOND: read in somebody's summary; REPLAYED: the released code was run again and agrees with its
logs; DERIVED: arithmetic from what was seen; UNKNOWN: not found, so the kit's own declared choice.
"""

from __future__ import annotations

from collections.abc import Iterable

from fedlora_kit.errors import UnknownName
from fedlora_kit.study.item import PAPERS as PAPERS
from fedlora_kit.study.item import Item as Item
from fedlora_kit.study.item import Kind as Kind
from fedlora_kit.study.item import Paper as Paper

_OWN = "the kit's own"

ITEMS: tuple[Item, ...] = (
    Item("start_here", "lesson", "From a split over a federated LoRA run to a picture", "", _OWN),
    Item("lessons/lora_and_fedavg", "lesson", "LoRA, and what happens when a server averages it", "", _OWN),
    Item("lessons/partitions", "lesson", "Who holds what: heterogeneity, seen and measured", "", _OWN),
    Item("lessons/ffa_lora", "lesson", "FFA-LoRA: freeze A, and three discordances are gone", "", _OWN),
    Item("lessons/dp_sgd", "lesson", "DP-SGD for adapters, and ε over the rounds", "", _OWN),
    Item("lessons/privacy_audit", "lesson", "Can you trust an ε? An audit from outside", "", _OWN),
    Item("lessons/layer_allocation", "lesson", "Which layers should a small client train?", "", _OWN),
    Item("lessons/directions_and_magnitudes", "lesson", "Directions and magnitudes of A and B", "", _OWN),
    Item("lessons/your_own_method", "lesson", "Your own method in 30 lines, beside the others", "", _OWN),
    Item("lessons/at_scale", "lesson", "From a laptop to a cluster: plan, shards, one store", "", _OWN),
    Item(
        "ffa-lora/figure1",
        "figure",
        "Noise amplification: LoRA's product of noises against full fine-tuning's and FFA-LoRA's",
        "Figure 1",
        "content SEEN; axes UNKNOWN",
    ),
    Item(
        "ffa-lora/table1",
        "table",
        "LoRA and FFA-LoRA without privacy and at ε = 6, 3 and 1",
        "Table 1",
        "layout and some cells SEEN; column order and the other cells UNKNOWN",
    ),
    Item(
        "ffa-lora/table2",
        "table",
        "i.i.d., mildly and severely heterogeneous labels",
        "Table 2 (number DERIVED)",
        "existence and one level of heterogeneity SEEN; the other level and all numbers UNKNOWN",
    ),
    Item(
        "ffa-lora/table3",
        "table",
        "Ranks 2 to 16 with trained parameters and traffic",
        "Table 3",
        "layout and some cells SEEN; parameter counts DERIVED",
    ),
    Item(
        "ffa-lora/table4",
        "table",
        "Learning rate and α, with and without tuning",
        "Table 4",
        "UNKNOWN: the experiment that reviews of the paper point to, our reading",
    ),
    Item("ffa-lora/table5", "table", "Rank × ε on QNLI", "Table 5", "layout and some cells SEEN"),
    Item(
        "ffa-lora/alpha",
        "figure",
        "α, and Theorem 1: LoRA's trajectory as α grows",
        "Theorem 1; α ablation in the appendix",
        "theorem and existence of the ablation SEEN; numbers UNKNOWN",
    ),
    Item(
        "ffa-lora/init_of_a",
        "table",
        "Initialisation of A: Kaiming, orthogonal, SVD of W0",
        "Appendix A.8",
        "numbers SEEN (their spread may be a variance)",
    ),
    Item(
        "ffa-lora/discordance1",
        "figure",
        "Aggregation error of averaging A and B apart",
        "Discordance 1",
        "the argument SEEN; the measurement is ours",
    ),
    Item(
        "ffa-lora/gsm8k",
        "table",
        "LLaMA-7B on GSM-8K",
        "Section 5.3",
        "two numbers SEEN; prompt and schedule UNKNOWN",
    ),
    Item(
        "ffa-lora/food101",
        "table",
        "ViT on Food-101",
        "Section 5.3 or appendix",
        "existence SEEN; numbers UNKNOWN",
    ),
    Item(
        "fed-hello/table2",
        "table",
        "All methods on CIFAR-100, IID and Non-IID 20/1.0 and 10/1.0, resources 1:1:1",
        "Table II",
        "one cell SEEN in the table, the others in the official logs; Straggler and layout UNKNOWN",
    ),
    Item(
        "fed-hello/table2_roc631",
        "table",
        "The same with resources 6:3:1",
        "UNKNOWN",
        "existence SECOND; numbers UNKNOWN",
    ),
    Item(
        "fed-hello/domainnet",
        "table",
        "All methods on DomainNet-121",
        "UNKNOWN",
        "existence SECOND; data set SEEN; model and numbers UNKNOWN",
    ),
    Item(
        "fed-hello/ledgar",
        "table",
        "All methods on LEDGAR",
        "UNKNOWN",
        "existence SECOND; model and metrics SEEN in the released code; numbers UNKNOWN",
    ),
    Item(
        "fed-hello/natural_instructions",
        "table",
        "All methods on Natural Instructions",
        "UNKNOWN",
        "existence SECOND; settings and numbers UNKNOWN",
    ),
    Item(
        "fed-hello/dolly",
        "table",
        "All methods on Dolly-15K",
        "UNKNOWN",
        "existence SECOND; settings and numbers UNKNOWN",
    ),
    Item(
        "fed-hello/patterns",
        "figure",
        "The four geometric allocations, fixed and randomised",
        "UNKNOWN",
        "Bottleneck SEEN in the released configuration; the other three DERIVED",
    ),
    Item(
        "fed-hello/strategies",
        "table",
        "GD-HLA × RGD-HLA × FIM-HLA",
        "UNKNOWN",
        "the strategies SEEN; the ablation's numbers UNKNOWN",
    ),
    Item(
        "fed-hello/proxy_data",
        "table",
        "Which data the Fisher scores come from",
        "UNKNOWN",
        "existence DERIVED from the released code; numbers UNKNOWN",
    ),
    Item(
        "fed-hello/fim_schedule",
        "figure",
        "Start and period of the Fisher refresh, and layer importance over rounds",
        "UNKNOWN",
        "existence DERIVED from file names; numbers UNKNOWN",
    ),
    Item(
        "fed-hello/curves",
        "figure",
        "Accuracy over rounds: official logs and ours",
        "UNKNOWN",
        "curves SEEN in the official logs; the paper's figure UNKNOWN",
    ),
    Item(
        "fed-hello/resources",
        "table",
        "Traffic, memory and operations by client group and method",
        "UNKNOWN",
        "traffic DERIVED; whether the paper has such a table is UNKNOWN",
    ),
    Item(
        "fed-hello/released_vs_described",
        "table",
        "What each defect of the released code does, one at a time",
        "",
        f"{_OWN}; defects SEEN in the released code, several REPLAYED against its logs",
    ),
    Item(
        "fedlora-optimizer/preliminary",
        "figure",
        "Variation of direction and magnitude of A and B",
        "preliminary experiment",
        "two ratios SECOND; definitions UNKNOWN",
    ),
    Item(
        "fedlora-optimizer/method",
        "figure",
        "Decomposition and pipeline",
        "method",
        "roles of A and B SEEN; decomposition and pipeline SECOND; details UNKNOWN",
    ),
    Item(
        "fedlora-optimizer/global",
        "table",
        "One global adapter: two data sets × two models × methods",
        "UNKNOWN",
        "average gain SEEN; metric, baseline and cells UNKNOWN",
    ),
    Item(
        "fedlora-optimizer/local",
        "table",
        "Personalised adapters: two data sets × two models × methods",
        "UNKNOWN",
        "average gain SEEN; metric, baseline and cells UNKNOWN",
    ),
    Item(
        "fedlora-optimizer/ablation",
        "table",
        "Which component each optimiser trains; pipeline against joint training",
        "UNKNOWN",
        "existence SECOND; numbers UNKNOWN",
    ),
    Item(
        "fedlora-optimizer/open_choices",
        "table",
        "How far each undocumented choice moves the result",
        "",
        f"{_OWN}: the choices are those that the sources leave open",
    ),
)


def find(wanted: str | Iterable[str]) -> list[Item]:
    """The items of these ids, also the user's own, in the order asked for, each once.

    Args:
        wanted: an id, a paper's id (meaning all its items), or several of either.

    Raises:
        UnknownName: no such item or paper.

    >>> [item.kind for item in find(["start_here", "ffa-lora/figure1"])]
    ['lesson', 'figure']
    """
    from fedlora_kit.papers.own_items import all_items

    names, items = [wanted] if isinstance(wanted, str) else list(wanted), all_items()
    found: dict[str, Item] = {}
    for name in names:
        matching = [item for item in items if name == item.id or (item.paper and name == item.paper)]
        if not matching:
            raise UnknownName("item", name, [*(i.id for i in items), *(p.id for p in PAPERS)])
        found.update((item.id, item) for item in matching)
    return list(found.values())
