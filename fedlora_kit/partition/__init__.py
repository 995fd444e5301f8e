"""Who holds which examples: one partitioner a file, all behind one interface."""

from fedlora_kit.partition.base import Partitioner, partitioner, partitioner_names, register
from fedlora_kit.partition.by_group import ByGroup
from fedlora_kit.partition.counts import label_counts
from fedlora_kit.partition.dirichlet import Dirichlet
from fedlora_kit.partition.from_flwr import FromFlwr
from fedlora_kit.partition.iid import IID
from fedlora_kit.partition.label_shares import LabelShares
from fedlora_kit.partition.of_dataset import partition_dataset
from fedlora_kit.partition.pathological import Pathological
from fedlora_kit.partition.pathological_domains import PathologicalDomains
from fedlora_kit.partition.picture import partition_figure
from fedlora_kit.partition.quantity_skew import QuantitySkew

__all__ = [
    "IID",
    "ByGroup",
    "Dirichlet",
    "FromFlwr",
    "LabelShares",
    "Partitioner",
    "Pathological",
    "PathologicalDomains",
    "QuantitySkew",
    "label_counts",
    "partition_dataset",
    "partition_figure",
    "partitioner",
    "partitioner_names",
    "register",
]
