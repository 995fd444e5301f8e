"""Names are words wherever people read them, and stay names in the CSV files."""

from __future__ import annotations

import pandas as pd
import pytest

from fedlora_kit.papers.fed_hello.grid import SPLITS
from fedlora_kit.papers.fed_hello.instructions import SPLITS as CATEGORIES
from fedlora_kit.papers.ffa_lora.table2 import LEVELS
from fedlora_kit.reporting.outputs import ItemOutputs
from fedlora_kit.reporting.two_lines import latex_table
from fedlora_kit.study import words


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (
            "micro_f1_best: (method=fed-hello) − (method=fedra) = +5",
            "best micro F1: (Fed-HeLLo) − (FedRA) = +5",
        ),
        ("accuracy, drop to eps=1: (method=lora)", "accuracy, drop to ε 1: (LoRA)"),
        (
            "no result for method=lora, rank=8, task=mnli-matched/mnli-mismatched",
            "no result for LoRA, rank 8, MNLI, matched/MNLI, mismatched",
        ),
        ("accuracy of method=lora, eps=none 12; p = 0.49", "accuracy of LoRA, no DP 12; p = 0.49"),
        ("largest relative error of 27 runs: 2.5e-08", "largest relative error of 27 runs: 2.5e-08"),
    ],
)
def test_a_reason_says_no_names(reason: str, said: str) -> None:
    assert words.sentence(reason) == said


def test_headings_of_every_kind() -> None:
    named = ["iid, micro-F1", "A_D", "memory_gb", "local_rouge_l_best", "mean", "n", "lr 0.1, C 1"]
    assert [words.heading(name) for name in named] == [
        *("IID, micro-F1", "direction of A", "memory, GB", "best local ROUGE-L", "mean", "n", "lr 0.1, C 1"),
    ]


def test_every_split_of_the_papers_has_words() -> None:
    for split in (*SPLITS, *CATEGORIES, *LEVELS["splits"]):
        assert words.value("split", split) == words.SPLITS[split]


@pytest.mark.parametrize("text", ["exclusive", "mild", "6.5", "a_b.csv", "", "my-own_method|x"])
def test_other_text_is_left_alone(text: str) -> None:
    assert words.value("answer", text) == text


def test_files_for_people_have_words_and_csv_has_names(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path))
    outputs = ItemOutputs("x", "smoke")
    shown = outputs.table(pd.DataFrame({"method": ["hetlora"], "eps": ["none"], "pat_20": ["1.00 ± 0.50"]}))
    assert shown.to_dict("list") == {"method": ["HETLoRA"], "ε": ["no DP"], "Non-IID 20/1.0": ["1.00 ± 0.50"]}
    assert (outputs.folder / "table.csv").read_text() == "method,eps,pat_20\nhetlora,none,1.00 ± 0.50\n"
    for name in ("table.md", "table.tex"):
        text = (outputs.folder / name).read_text()
        assert "HETLoRA" in text
        assert "Non-IID 20/1.0" in text
        assert "pat" not in text
    runs = {"method": ["ffa-lora"], "round": [1], "key": ["k"], "test accuracy": [50.0]}
    assert "FFA-LoRA & 50.00" in latex_table(pd.DataFrame(runs))
