"""The kit's own lessons: one file an item."""

from __future__ import annotations

from fedlora_kit.study.item import Item

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
)
