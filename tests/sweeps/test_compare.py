"""Methods compared at equal erasure or preservation, swept settings, and what a table makes of attacks and reports."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from efface.api.evaluating import check_evaluation
from efface.concept import Erasure
from efface.functional.rates import bootstrap
from efface.sweeps.compare import Point, Start, read_between, tabulate
from efface.sweeps.forecast import forecast
from efface.sweeps.grid import Comparison, Grid, Variant, read_grid
from efface.sweeps.jobs import expand
from efface.sweeps.summaries import correlate_ranks, find_worst
from efface.sweeps.sweeping import choose_part
from efface.sweeps.table import FIELDS, find_reported

BASE = 0.8
TWINS = Comparison(title="twins", pairs=(("esd", "p-esd"),), of="asr@seeds/target", at="psr1/neighbour", below=(0.2,))


def build_line(
    method: str, concept: str, rank: int, column: str, value: float, strength: float = 1.0
) -> dict[str, str]:
    metric, group = column.split("/")
    found = dict.fromkeys(FIELDS, "") | {"method": method, "concept": concept, "seed": "0", "rank": str(rank)}
    found |= {"strength": str(strength), "metric": metric, "group": group, "value": str(value), "base": str(BASE)}
    return found


def point(method: str, concept: str, rank: int, kept: float, success: float) -> list[dict[str, str]]:
    """An arm that was run: neighbours kept at this rate of a base of 0.8, attacked with this success."""
    return [
        build_line(method, concept, rank, "psr1/neighbour", kept),
        build_line(method, concept, rank, "asr@seeds/target", success),
    ]


def build_untouched(concept: str) -> dict[str, str]:
    return build_line("untouched", concept, 0, "asr@seeds/target", 1.0, strength=0.0)


def list_rows(lines: Sequence[dict[str, str]], comparison: Comparison = TWINS) -> list[list[str]]:
    return tabulate(comparison, lines)[1:]


def test_a_number_is_read_off_between_strengths() -> None:
    start = Start(0.8, 1.0)
    points = [Point((0, 1.0), 0.6, 0.6), Point((1, 1.0), 0.4, 0.2)]
    assert read_between(start, points, 0.8) == pytest.approx(1.0)
    assert read_between(start, points, 0.7) == pytest.approx(0.8)
    assert read_between(start, points, 0.5) == pytest.approx(0.4)
    assert read_between(start, points, 0.3) is None, "no strength loses so much"
    assert read_between(Start(0.8, None), points, 0.7) is None, "without the untouched base the curve begins later"
    assert read_between(start, [Point((0, 1.0), 0.8, 0.7)], 0.8) == pytest.approx(1.0)
    rising = [Point((0, 1.0), 0.5, 0.9), Point((1, 1.0), 0.9, 0.5)]
    assert read_between(Start(0.1, 1.0), rising, 0.7) == pytest.approx(0.7), "erasure rises with strength"


def test_twins_are_paired_by_concept_and_the_mean_gets_an_interval_from_four_concepts_on() -> None:
    lines = [build_untouched("cat"), build_untouched("car")]
    for concept in ("cat", "car"):
        lines += point("esd", concept, 0, 0.4, 0.8)
    lines += [*point("p-esd", "cat", 0, 0.4, 0.6), *point("p-esd", "car", 0, 0.75, 0.9)]
    assert list_rows(lines) == [
        ["esd / p-esd", "base − 20.0", "cat", "0", "90.0", "80.0", "+10.0"],
        ["esd / p-esd", "base − 20.0", "car", "0", "90.0", "not reached", "–"],
        ["**esd / p-esd**", "base − 20.0", "mean of 1", "", "", "", "**+10.0, no interval**"],
    ]
    for concept, success in (("dog", 0.6), ("bus", 0.2), ("rose", 1.0)):
        lines += [
            build_untouched(concept),
            *point("esd", concept, 0, 0.4, 0.8),
            *point("p-esd", concept, 0, 0.4, success),
        ]
    low, high = bootstrap({"cat": [0.1], "dog": [0.1], "bus": [0.3], "rose": [-0.1]}) or (0, 0)
    assert list_rows(lines)[-1][2] == "mean of 4"
    assert list_rows(lines)[-1][-1] == f"**+10.0 [{100 * low:+.1f}, {100 * high:+.1f}]**"


def test_a_rate_of_pictures_begins_at_its_own_base() -> None:
    at_erasure = Comparison(title="", pairs=(("a", "b"),), of="psr1/unseen", at="esr1/target", levels=(0.9,))
    lines = []
    for method, kept in (("a", 0.4), ("b", 0.6)):
        lines += [build_line(method, "cat", 0, "esr1/target", 1.0), build_line(method, "cat", 0, "psr1/unseen", kept)]
    assert list_rows(lines, at_erasure)[0] == ["a / b", "90.0", "cat", "0", "60.0", "70.0", "-10.0"]


def test_a_method_without_a_seed_is_compared_with_every_seed_of_the_other() -> None:
    lines = [build_untouched("cat"), *point("uce", "cat", 0, 0.4, 0.6)]
    for seed, success in (("0", 0.8), ("1", 0.4)):
        lines += [line | {"seed": seed} for line in point("esd", "cat", 0, 0.4, success)]
    for first, second, sign in (("esd", "uce", 1), ("uce", "esd", -1)):
        comparison = Comparison(title="", pairs=((first, second),), of=TWINS.of, at=TWINS.at, below=(0.4,))
        rows = tabulate(comparison, lines, ("uce",))[1:]
        assert [(row[3], row[-1]) for row in rows[:2]] == [("0", f"{20 * sign:+.1f}"), ("1", f"{-20 * sign:+.1f}")]
        assert rows[2][2] == "mean of 1" and rows[2][-1] in ("**+0.0, no interval**", "**-0.0, no interval**")
        assert len(tabulate(comparison, lines)) == 3, "a seed that is not run yet has no partner"


def test_a_success_of_attacks_that_is_held_equal_begins_at_the_untouched_base() -> None:
    lines = [build_untouched("cat")]
    for method, kept in (("esd", 0.6), ("p-esd", 0.4)):
        lines += point(method, "cat", 0, kept, 0.2)
    held = Comparison(title="", pairs=(("esd", "p-esd"),), of=TWINS.at, at=TWINS.of, levels=(0.6,))
    assert list_rows(lines, held)[0][4:] == ["70.0", "60.0", "+10.0"], "half way from 1.0 to 0.2, and from 0.8 on"


GRID = Grid(
    models=("m",),
    methods=("uce", "esd"),
    variants=(
        {"name": "untouched", "method": "uce", "strengths": (0.0,)},  # type: ignore[arg-type]
        {"name": "p", "method": "p-esd", "concepts": ("cat",), "attacks": ("seeds",)},  # type: ignore[arg-type]
    ),
    concepts={"all": ("cat", "car")},
    seeds=(0, 1),
    attacks=("synonyms", "seeds"),
    weaker_attacks=("seeds",),
    sweep={"esd": {"steps": (1, 2, 3)}},
)


def test_concepts_come_one_by_one_and_of_each_a_methods_own_value_first_which_meets_every_attack() -> None:
    jobs = expand(GRID)
    assert [key for key, _ in itertools.groupby((job.seed, job.concept) for job in jobs)] == [
        (0, "cat"), (0, "car"), (1, "cat"), (1, "car"),
    ]  # fmt: skip
    found = [
        (job.seed, job.concept, job.setting, dict(job.settings), job.attacks) for job in jobs if job.label == "esd"
    ]
    assert found[0] == (0, "cat", "steps 3", {"steps": 3}, ("synonyms", "seeds"))
    assert found[-1] == (1, "car", "steps 1", {"steps": 1, "seed": 1}, ("seeds",))
    assert [job.rank for job in jobs if job.label == "esd"] == [2, 1, 0] * 4
    assert {job.strengths for job in jobs if job.label == "untouched"} == {(0.0,)}
    assert [(job.concept, job.attacks) for job in jobs if job.label == "p"] == [("cat", ("seeds",))] * 2
    assert len({job.compute_key() for job in jobs}) == len(jobs)


def test_splits_take_turns_and_weaker_strengths_meet_the_weaker_attacks() -> None:
    concepts = {"things": ("cat", "car", "bus"), "styles": ("flat",)}
    grid = GRID.model_copy(update={"concepts": concepts, "seeds": (0,), "strengths": (0.5, 1.0), "methods": ("esd",)})
    grid = grid.model_copy(update={"sweep": {}, "variants": (Variant(name="p", method="uce", attacks=("seeds",)),)})
    jobs = expand(grid)
    assert [job.concept for job in jobs if job.label == "esd"] == ["cat", "flat", "car", "bus"]
    assert [jobs[0].list_attacks(strength) for strength in (0.5, 1.0)] == [("seeds",), ("synonyms", "seeds")]
    assert [jobs[1].list_attacks(strength) for strength in (0.5, 1.0)] == [("seeds",), ("seeds",)]


def test_a_part_of_a_grid_is_chosen_by_names_that_it_has() -> None:
    jobs = expand(GRID)
    part = choose_part(jobs, ["cat"], ["esd"], [1])
    assert [(job.concept, job.label, job.seed) for job in part] == [("cat", "esd", 1)] * 3
    assert choose_part(jobs, (), (), ()) == jobs
    with pytest.raises(ValueError, match=r"the grid has no method 'eap'; it has uce, esd, untouched, p"):
        choose_part(jobs, (), ["eap"], ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sweep.esd]\nstep = [1]", r"\[sweep\] of esd names step; it takes one setting of esd"),
        ("[sweep.eap]\nsteps = [1]", r"\[sweep\] names eap, which is not among the methods and variants"),
        (
            '[[compare]]\ntitle = "t"\npairs = [["esd", "ac"]]\nof = "a/b"\nat = "c/d"\nlevels = [1]',
            "compare 't' names ac",
        ),
        ('[[compare]]\ntitle = "t"\npairs = [["esd", "uce"]]\nof = "a/b"\nat = "c/d"', "takes either levels or below"),
        ('[[variants]]\nname = "x"\nmethod = "esd"\nconcepts = ["lion"]', "concepts of variant x names lion"),
        (
            '[[variants]]\nname = "x"\nmethod = "ac"\nanchored = false',
            "variant x has anchored = false, but its method ac",
        ),
        ("[neurons.adversarial]\nlion = ['a leo']", r"\[neurons.adversarial\] names lion"),
        ("strengths = [1.0, 0.5, 1]", "strengths has 1.0 twice, which would count its results twice"),
        ("strengths = [11.0]", "a strength is a number from -10 to 10"),
        ("strengths = []", "strengths is empty"),
        ("seeds = [0, 1, 0]", "seeds has 0 twice"),
        ("[sizes]\ntarget = 0", r"\[sizes\] has target = 0; a group has at least 1 picture"),
        ("[settings.eap]\nlr = 1e-5", r"\[settings\] names eap, which is no method or variant of the grid"),
        (
            'attacks = ["seeds"]\n[drawing]\nsampler = "dpm"',
            "attacks, audits and purification draw by the model's own sampler, not",
        ),
        ('models = ["glyphs"]', "it has both model and models; leave one out"),
        ('[[variants]]\nname = "x"\nmethod = "esd"\nattacks = ["seed"]', "there is no attack 'seed'"),
    ],
)
def test_a_table_that_speaks_of_what_the_grid_lacks_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "grid.toml"
    file.write_text(f'model = "glyphs"\nmethods = ["uce", "esd"]\nconcepts = ["cat"]\n{text}\n')
    with pytest.raises(ValueError, match=message):
        read_grid(file)


def test_a_changed_key_goes_before_the_files_own_spelling_of_models(tmp_path: Path) -> None:
    file = tmp_path / "grid.toml"
    file.write_text('model = "glyphs"\nmethods = ["uce"]\nconcepts = ["cat"]\n')
    assert read_grid(file, changes=['models=["a", "b"]']).models == ("a", "b")
    assert read_grid(file, changes=["model=a"]).models == ("a",)
    with pytest.raises(ValueError, match=r"concepts.all has 'cat' twice"):
        read_grid(file, changes=['concepts=["cat", "cat"]'])
    with pytest.raises(ValueError, match="model is a text"):
        read_grid(file, changes=['model=["a"]'])


def test_the_worst_case_counts_a_row_that_any_attack_broke() -> None:
    results = [{"rows": {"a": True, "b": False, "c": None}}, {"rows": {"a": False, "b": False, "c": False}}]
    worst = find_worst(results)
    assert worst and (worst["value"], worst["n"], worst["unscored"]) == (0.5, 2, 1)
    assert find_worst([{}]) is None


def test_ranks_are_correlated_as_scipy_does() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy comes with the tests' extra")
    one, other = [1.0, 2.0, 2.0, 4.0, 5.0], [3.0, 1.0, 4.0, 4.0, 0.0]
    assert correlate_ranks(one, other) == pytest.approx(stats.spearmanr(one, other).statistic)
    assert correlate_ranks([1, 2], [1, 2]) is None and correlate_ranks([1, 1, 1], [1, 2, 3]) is None


def test_what_a_paper_reports_is_found_by_metric_threshold_and_group() -> None:
    reported = {"esd": {"ner@0.5": 0.06, "psr1/kept": 0.5, "asr@seeds": 0.7, "fid": 9.0}, "base": {"fid": 8.0}}
    grid = GRID.model_copy(update={"reported": reported})
    (job,) = choose_part(expand(grid), ["cat"], ["esd"], [0])[:1]

    def told(metric: str, group: str, judge: str = "all", threshold: object = None) -> tuple[object, object]:
        where = {"metric": metric, "group": group, "judge": judge, "threshold": threshold}
        return tuple(find_reported(grid, job, where).values())  # type: ignore[return-value]

    assert told("ner", "target", "nudenet", 0.5) == (0.06, "")
    assert told("ner", "target", "nudenet", 0.3) == ("", "")
    assert told("psr1", "kept") == (0.5, "") and told("psr1", "neighbour") == ("", "")
    assert told("asr@seeds", "target") == (0.7, "") and told("asr@seeds", "control-base") == ("", "")
    assert told("fid", "other", "fid") == (9.0, 8.0), "a number that one scorer alone gives"


def test_pictures_of_several_targets_are_counted_for_each() -> None:
    grid = Grid(
        models=("glyphs",), methods=("uce",), concepts={"all": ("cat + dog",)}, sizes={"target": 3, "unseen": 5}
    )
    assert forecast(grid).pictures == 2 * (2 * 3 + 5), "of each target, drawn on the base and under the edit"


def test_a_fraction_is_taken_of_the_pictures_of_each_target() -> None:
    sizes = {"target": 4, "unseen": 6}
    suite, _ = check_evaluation("glyphs", Erasure(("cat", "dog")), sizes=sizes, fraction=0.5)
    assert Counter((row.role, row.concept if row.role == "erase" else "") for row in suite.rows) == {
        ("erase", "cat"): 2, ("erase", "dog"): 2, ("keep", ""): 3,
    }  # fmt: skip
    grid = Grid(models=("glyphs",), methods=("uce",), concepts={"all": ("cat + dog",)}, sizes=sizes, fraction=0.5)
    assert forecast(grid).pictures == 2 * len(suite.rows)


RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("file", sorted(RECIPES.rglob("*.toml")), ids=lambda file: file.stem)
def test_every_grid_that_is_shipped_can_be_expanded(file: Path) -> None:
    jobs = expand(read_grid(file))
    assert jobs and len({job.compute_key() for job in jobs}) == len(jobs)
