"""FFA-LoRA (Sun, Li, Li, Ding, ICLR 2024): one file an item."""

from __future__ import annotations

from fedlora_kit.study.item import Item, Paper

PAPER = Paper(
    "ffa-lora",
    "Improving LoRA in Privacy-preserving Federated Learning",
    "ICLR 2024, arXiv 2403.12313",
)

ITEMS: tuple[Item, ...] = (
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
)
