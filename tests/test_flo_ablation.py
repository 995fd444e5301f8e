"""FedLoRA-Optimizer's ablation as data."""

import pandas as pd
import pytest

from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.papers.fedlora_optimizer import ablation, setting
from fedlora_kit.study.claims import judge_all

ITEM = "fedlora-optimizer/ablation"


def results(value, pairs):
    """value: (structure, global, local) -> global and local score."""
    rows = []
    for cell in ablation.cells(ablation.setting(ITEM, "smoke"), pairs):
        found = value(**cell.coords)
        rows.append(
            {
                **cell.coords,
                "task": "instructions",
                "seed": cell.seed,
                "rouge_l": found[0] + 0.1 * cell.seed * len(str(cell.coords)),
                "local_rouge_l": found[1] + 0.1 * cell.seed * len(str(cell.coords)),
                "loss": 1.0,
                "local_loss": 2.0,
            }
        )
    return pd.DataFrame(rows)


def test_each_structure_and_pair_runs_once_and_sets_what_it_says():
    s = ablation.setting(ITEM, "smoke", seeds=2)
    made = ablation.cells(s, ablation.pairs("small"))
    assert len({c.spec.canonical() for c in made}) == len(made) == (5 + 15) * 2
    expected = {
        ("pipeline", "A_D", "B_M"): {},
        ("joint", "A_D", "B_M"): {"structure": "joint"},
        ("global only", "A_D", "none"): {"local_trains": None},
        ("local only", "none", "B_M"): {"global_trains": None},
        ("neither", "none", "none"): {"global_trains": None, "local_trains": None},
        ("pipeline", "B_M", "B_M"): {"global_trains": "B_M"},
        ("pipeline", "A_D", "A_D"): {"local_trains": "A_D"},
        ("pipeline", "B_D", "A_M"): {"global_trains": "B_D", "local_trains": "A_M"},
    }
    found = {tuple(c.coords.values()): c.spec for c in made if c.seed == 1}
    for place, settings in expected.items():
        assert found[place] == setting.spec(s, "fedlora-optimizer", 1, **settings)


def test_the_cross_is_a_row_and_a_column_of_the_grid():
    whole = {(g, one) for g in ablation.COMPONENTS for one in ablation.COMPONENTS}
    assert set(ablation.pairs("paper")) == set(ablation.pairs("smoke", "all")) == whole
    cross = ablation.pairs("smoke")
    assert set(cross) == {p for p in whole if p[0] == "A_D" or p[1] == "B_M"}
    assert len(cross) == 7
    with pytest.raises(UnknownName, match="grid of components"):
        ablation.pairs("smoke", "half")


def test_the_smoke_profile_is_smaller_and_a_parameter_wins():
    assert ablation.setting(ITEM, "smoke").steps == ablation.SMOKE["steps"]
    assert ablation.setting(ITEM, "smoke", steps=7, lr=None).steps == 7
    assert ablation.setting(ITEM, "paper") == setting.PROFILES["paper"]
    with pytest.raises(BadValue, match="task 'polarity' is not"):
        ablation.setting(ITEM, "smoke", task="polarity")
    with pytest.raises(BadValue, match="steps"):
        ablation.setting(ITEM, "smoke", steps=0)


def by_design(structure, **parts):
    """Scores as the paper would have them."""
    at = 50 + 10 * (structure == "pipeline")
    return at + 5 * (parts["global"] == "A_D"), at + 5 * (parts["local"] == "B_M")


def test_the_claims():
    cross = ablation.pairs("smoke")
    good = judge_all(ablation.claims(), results(by_design, cross))
    assert {j.verdict.status for j in good} == {"reproduced"}
    assert len(good) == 7 + 6
    bad = judge_all(ablation.claims(), results(lambda **at: [-v for v in by_design(**at)], cross))
    assert {j.verdict.status for j in bad} == {"not reproduced"}
    alone = judge_all(ablation.claims(), results(by_design, [("A_D", "B_M")]))
    untested = {j.claim.id for j in alone if j.verdict.status == "not testable"}
    assert untested == {j.claim.id for j in good if j.claim.id.startswith(("global_", "local_"))}
    # the global adapter is the same with and without the local optimisers
    assert not any(j.claim.id == "pipeline_above_global_only_global" for j in good)


def test_the_tables_show_both_scores_and_failures():
    frame = results(by_design, ablation.pairs("smoke"))
    five = ablation.structures(frame)
    assert list(dict.fromkeys(five["structure"])) == list(ablation.STRUCTURES)
    assert len(five) == 15
    frame.loc[(frame["structure"] == "joint") & (frame["seed"] == 0), "rouge_l"] = float("nan")
    shown = ablation.table(ablation.structures(frame), ["structure"]).set_index("structure")
    assert list(shown.columns) == list(ablation.SCORES.values())
    assert shown.loc["joint", "global ROUGE-L"].endswith("(1 diverged)")
    assert shown.loc["pipeline", "local loss"] == "2.00 ± 0.00"


def test_the_note_declares_extra_steps_and_data():
    note = " ".join(ablation.deviations(ablation.setting(ITEM, "smoke")))
    assert "extra steps" in note
    assert "server" in note
    assert "smoke run" in note
    assert "smoke run" not in " ".join(ablation.deviations(ablation.setting(ITEM, "paper")))
