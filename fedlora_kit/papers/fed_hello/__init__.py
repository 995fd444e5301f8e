"""Fed-HeLLo (Zhang, Liu, Xu, Hu, IEEE TNNLS 2025): one file an item."""

from __future__ import annotations

from fedlora_kit.study.item import Item, Paper

_OWN = "the kit's own"

PAPER = Paper(
    "fed-hello",
    "Fed-HeLLo: Efficient Federated Foundation Model Fine-Tuning with Heterogeneous LoRA Allocation",
    "IEEE TNNLS 36(10) 2025, arXiv 2506.12213",
)

ITEMS: tuple[Item, ...] = (
    Item(
        "fed-hello/table2",
        "table",
        "All methods on CIFAR-100, IID and Non-IID 20/1.0 and 10/1.0, resources 1:1:1",
        "Table II",
        "one cell SEEN in the table, the others in the official logs; Straggler and layout UNKNOWN",
        parameters={"item": "fed-hello/table2"},
    ),
    Item(
        "fed-hello/table2_roc631",
        "table",
        "The same with resources 6:3:1",
        "UNKNOWN",
        "existence SECOND; numbers UNKNOWN",
        stem="table2",
        parameters={"item": "fed-hello/table2_roc631"},
        module="table2",
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
        stem="instructions",
        parameters={"item": "fed-hello/natural_instructions"},
        module="instructions",
    ),
    Item(
        "fed-hello/dolly",
        "table",
        "All methods on Dolly-15K",
        "UNKNOWN",
        "existence SECOND; settings and numbers UNKNOWN",
        stem="instructions",
        parameters={"item": "fed-hello/dolly"},
        module="instructions",
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
)
