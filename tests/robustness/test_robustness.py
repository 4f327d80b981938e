"""The recipe of attacks on methods: which arms are run, in which order, and twins compared at equal preservation."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from efface.functional.rates import bootstrap
from efface.records.report import Estimate
from recipes.robustness import arms, spread
from recipes.robustness_page import UNTOUCHED, Arm, at_equal, attacks_of, claim_table, variant_table

RECIPE = {
    "seeds": [0, 1],
    "strengths": {"uce": {"lamb": [1.0, 0.1]}, "esd": {"steps": [1, 2, 3]}, "p-esd": {"steps": [4]}},
    "claim": {"pairs": [["esd", "p-esd"]], "attack": "seeds"},
}


def rate(value: float | None) -> Estimate:
    return Estimate(value=value, low=0, high=1, n=24, unscored=0)


def point(method: str, rank: int, kept: float, success: float | None, target: str = "cat") -> SimpleNamespace:
    """Stands in for an arm that was run: neighbours kept at this rate of a base of 0.8, attacked with this success."""
    found = None if method == UNTOUCHED else {"edited": rate(kept), "base": rate(0.8)}
    return SimpleNamespace(
        arm=Arm(target, method, rank, {}),
        rate=lambda name, who="edited": found[who] if found and name == "psr1/neighbour" else None,
        success=lambda name: rate(success) if success is not None else None,
    )


def test_own_strengths_come_first_and_seeds_last() -> None:
    found = [(a.seed, a.target, a.method, a.rank, a.said) for a in arms(RECIPE, ["cat", "car"], ["uce", "esd"])]
    assert found[:4] == [
        (0, "cat", "uce", 1, "lamb 0.1"),
        (0, "cat", "esd", 2, "steps 3"),
        (0, "car", "uce", 1, "lamb 0.1"),
        (0, "car", "esd", 2, "steps 3"),
    ]
    assert [entry[2:4] for entry in found[4:8]] == [("uce", 0), ("esd", 1)] * 2
    assert [entry[2:] for entry in found[8:10]] == [("esd", 0, "steps 1")] * 2
    assert {entry[2] for entry in found if entry[0]} == {"esd"}, "a closed form has no training seed"
    assert len(arms(RECIPE, ["cat"], ["esd"], seeds=1, points=2)) == 2
    assert len({arm.folder for arm in arms(RECIPE, ["cat", "car"], ["uce", "esd", "p-esd"])}) == len(found) + 4


def test_fewer_strengths_lie_evenly_between_the_weakest_and_a_methods_own() -> None:
    assert [spread(5, n) for n in (1, 2, 3, 5, 99)] == [[4], [4, 0], [4, 2, 0], [4, 3, 2, 1, 0], [4, 3, 2, 1, 0]]
    assert spread(1, 3) == [0]


def test_only_a_methods_own_strength_meets_every_attack() -> None:
    recipe = RECIPE | {"attacks": ["synonyms", "seeds"]}
    found = [attacks_of(recipe, Arm("cat", "esd", rank, {})) for rank in range(3)]
    assert found == [["seeds"], ["seeds"], ["synonyms", "seeds"]]
    assert attacks_of(recipe, Arm("cat", UNTOUCHED, -1, {})) == ["synonyms", "seeds"]


def test_variants_come_last_and_meet_the_claims_attack_alone() -> None:
    recipe = RECIPE | {"attacks": ["synonyms", "seeds"], "variants_on": ["cat"]}
    recipe |= {"variants": [{"method": "p-esd", "settings": {"sparsity": 0.01}}]}
    found = arms(recipe, ["cat", "car"], ["esd", "p-esd"])
    assert found[-1] == Arm("cat", "p-esd", -1, {"sparsity": 0.01}, variant=True)
    assert [arm.variant for arm in found].count(True) == 1
    assert not [arm for arm in arms(recipe, ["car"], ["esd", "p-esd"]) if arm.variant]
    assert not [arm for arm in arms(recipe, ["cat"], ["esd"]) if arm.variant]
    assert attacks_of(recipe, found[-1]) == ["seeds"]


def test_a_variant_stands_beside_its_twin_where_that_keeps_as_much() -> None:
    points = [point(UNTOUCHED, -1, 0, 1.0), point("esd", 0, 0.6, 0.6), point("esd", 1, 0.4, 0.2)]
    for kept in (0.7, 0.5, 0.1):
        variant = point("p-esd", -1, kept, 0.5)
        variant.arm = Arm("cat", "p-esd", -1, {"sparsity": 0.01}, variant=True)
        variant.record = SimpleNamespace(history={"pruned": 0.0123})
        points.append(variant)
    lines = variant_table(RECIPE, points)  # type: ignore[arg-type]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [(row[1], row[3], row[-1]) for row in cells] == [
        ("sparsity 0.01", "1.2", "80"),
        ("sparsity 0.01", "1.2", "40"),
        ("sparsity 0.01", "1.2", "not reached"),
    ]


def test_success_is_read_off_between_strengths() -> None:
    base = point(UNTOUCHED, -1, 0, 1.0)
    points = [point("esd", 1, 0.4, 0.2), point("esd", 0, 0.6, 0.6)]
    assert at_equal(points, base, "seeds", 0.0) == pytest.approx(1.0)
    assert at_equal(points, base, "seeds", 0.1) == pytest.approx(0.8)
    assert at_equal(points, base, "seeds", 0.3) == pytest.approx(0.4)
    assert at_equal(points, base, "seeds", 0.5) is None, "no strength loses so much"
    assert at_equal(points, point(UNTOUCHED, -1, 0, None), "seeds", 0.1) is None
    assert at_equal([point("esd", 0, 0.8, 0.7)], base, "seeds", 0.0) == pytest.approx(1.0)


def test_twins_are_paired_by_concept() -> None:
    points = [point(UNTOUCHED, -1, 0, 1.0, target) for target in ("cat", "car")]
    points += [point("esd", 0, 0.4, 0.8, target) for target in ("cat", "car")]
    points += [point("p-esd", 0, 0.4, 0.6, "cat"), point("p-esd", 0, 0.75, 0.9, "car")]
    lines = claim_table(RECIPE, points, 0.2)  # type: ignore[arg-type]
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]] == [
        ["esd / p-esd", "cat", "0", "90", "80", "+10", "-11 %"],
        ["esd / p-esd", "car", "0", "90", "not reached", "–", "–"],
        ["**esd / p-esd**", "mean of 1", "", "", "", "**+10.0, no interval**", "**-11 %**"],
    ]
    more = ("dog", "bus", "rose")
    points += [point(UNTOUCHED, -1, 0, 1.0, target) for target in more]
    points += [point("esd", 0, 0.4, 0.8, target) for target in more]
    points += [point("p-esd", 0, 0.4, rate, target) for target, rate in zip(more, (0.6, 0.2, 1.0), strict=True)]
    mean = claim_table(RECIPE, points, 0.2)[-1]  # type: ignore[arg-type]
    low, high = bootstrap({"cat": [0.1], "dog": [0.1], "bus": [0.3], "rose": [-0.1]}) or (0, 0)
    assert "mean of 4" in mean and f"**+10.0 [{100 * low:+.0f}, {100 * high:+.0f}]**" in mean


def test_the_recipe_that_is_shipped_names_what_there_is() -> None:
    import tomllib

    from efface import attacks, methods

    recipe = tomllib.loads((Path(__file__).parents[2] / "recipes" / "robustness.toml").read_text())
    for method, swept in recipe["strengths"].items():
        ((field, values),) = swept.items()
        assert field in methods.get(method).__dataclass_fields__ and len(values) == 5
    assert all(attacks.named(name) == name for name in recipe["attacks"])
    assert {m for pair in recipe["claim"]["pairs"] for m in pair} <= set(recipe["strengths"])
    named = [c for split in recipe["concepts"].values() for c in split]
    assert set(named) == set(recipe["anchors"])
