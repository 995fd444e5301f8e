"""Who holds what in a Fed-HeLLo experiment, to look at."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedlora_kit.data import get_task
from fedlora_kit.experiments.setup import load_data, split_indices
from fedlora_kit.papers.fed_hello.grid import Setting, cell
from fedlora_kit.partition import label_counts


def held(s: Setting, split: str) -> npt.NDArray[np.int64]:
    """What clients hold at seed 0, (clients, classes): examples, those among them that become proxies too."""
    spec = cell(s, split, "1:1:1", "lora", 0, {}).spec
    train, _ = load_data(spec.data, spec.model.backbone)
    return label_counts(split_indices(spec, train), train.labels, get_task(s.task).num_labels)
