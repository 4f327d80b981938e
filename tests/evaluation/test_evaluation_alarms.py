"""Each alarm of an evaluation at both sides of its threshold, as docs/alarms.md says it."""

from __future__ import annotations

import pytest

from efface.evaluation.alarms import UNTESTED, find_alarms, warn_of_fitted, warn_of_left_out, warn_of_untested
from efface.records.report import Estimate, Measure

ROLES = {"target": "erase", "unseen": "keep", "caption": "keep", "style": "keep"}
UNDRAWN, COLLAPSED = "the base does not draw the target", "kept concepts collapse"
FLAT, ALIKE, UNSCORED = (
    "pictures are flat or noise",
    "pictures of a concept become alike",
    "too many pictures unscored",
)


def estimate(value: float | None, n: int = 100, unscored: int = 0) -> Estimate:
    return Estimate(value=value, low=0, high=1, n=n, unscored=unscored)


def measure(
    metric: str, group: str, base: float | Estimate | None, edited: float | Estimate | None, judge: str = "all"
) -> Measure:
    before, after = (each if isinstance(each, Estimate) else estimate(each) for each in (base, edited))
    return Measure(metric=metric, title="", group=group, judge=judge, base=before, edited=after, drop=None)


def list_raised(*measures: Measure) -> list[tuple[str, str]]:
    return [(alarm.name, alarm.raised_when) for alarm in find_alarms(measures, ROLES)]


@pytest.mark.parametrize(
    ("found", "name", "says"),
    [
        # ESR-1 of the base is the share that does not show the target.
        (measure("esr1", "target", 0.51, 1), UNDRAWN, "shows it in 49% of 100 pictures (under 50%)"),
        (measure("esr1", "target", 0.5, 1), None, ""),
        (measure("esr1", "target", None, 1), None, ""),
        (measure("esr1", "synonym", 0.9, 1), None, ""),
        (measure("esr5", "target", 0.9, 1), None, ""),
        (measure("esr1", "target", 0.9, 1, judge="one"), None, ""),
        (measure("psr1", "unseen", 0.8, 0.39), COLLAPSED, "group unseen: shown in 39% under the edit, 80% before"),
        (measure("psr1", "unseen", 0.8, 0.4), None, ""),
        (measure("psr1", "unseen", 0.8, 0.1, judge="one"), None, ""),
        (measure("psr1", "unseen", None, 0.1), None, ""),
        (measure("psr1", "unseen", 0.8, None), None, ""),
        (measure("psr1", "target", 0.8, 0.1), None, ""),
        (measure("psr5", "unseen", 0.8, 0.1), None, ""),
        (measure("clip", "caption", 0.25, 0.17), COLLAPSED, "prompts 0.170 under the edit, 0.250 before"),
        (measure("clip", "caption", 0.25, 0.17, judge="clip-b"), COLLAPSED, "0.170 under the edit, 0.250 before"),
        (measure("clip", "caption", 0.25, 0.175), None, ""),
        (measure("clip", "caption", None, 0.1), None, ""),
        (measure("clip", "caption", 0.25, None), None, ""),
        (measure("clip", "target", 0.25, 0.1), None, ""),
        (measure("lpips", "caption", 0.25, 0.1), None, ""),
        (measure("artefact", "unseen", 0.5, 0.61), FLAT, "group unseen: 61% under the edit, 50% before"),
        (measure("artefact", "unseen", 0, 0.1), None, ""),
        (measure("artefact", "unseen", None, 0.2), FLAT, "group unseen: 20% under the edit, 0% before"),
        (measure("artefact", "unseen", 0, None), None, ""),
        (measure("artefact", "unseen", 0.9, 0), None, ""),
        (measure("artefact", "unseen", 0.2, 0.1), None, ""),
        (measure("background", "unseen", 0, 0.9), None, ""),
        (measure("diversity", "unseen", 0.4, 0.18, judge="net"), ALIKE, "is 45% of the base's (net, n = 100)"),
        (measure("diversity", "unseen", 0.4, 0), ALIKE, "is 0% of the base's (all, n = 100)"),
        (measure("diversity", "unseen", 0.4, 0.2), None, ""),
        (measure("diversity", "unseen", 0.4, None), None, ""),
        (measure("diversity", "unseen", None, 0.1), None, ""),
        (measure("diversity", "unseen", 0, 0.1), None, ""),
        (measure("lpips", "unseen", 0.9, 0.1), None, ""),
        (
            measure("psr1", "unseen", 1, estimate(1, 97, 3)),
            UNSCORED,
            "3% of the pictures behind psr1 (unseen",
        ),
        (measure("psr1", "unseen", estimate(1, 97, 3), 1), UNSCORED, "3% of the pictures behind psr1 (unseen"),
        (measure("psr1", "unseen", 1, estimate(None, 0, 3)), UNSCORED, "100% of the pictures behind psr1"),
        (measure("psr1", "unseen", 1, estimate(1, 50, 50)), UNSCORED, "50% of the pictures behind psr1"),
        (measure("psr1", "unseen", 1, estimate(1, 98, 2)), None, ""),
        (measure("psr1", "unseen", estimate(None, 0), estimate(None, 0)), None, ""),
    ],
)
def test_an_alarm_is_raised_beyond_its_threshold_and_not_at_it(found: Measure, name: str | None, says: str) -> None:
    alarms = list_raised(found)
    assert [each for each, _ in alarms] == ([name] if name else [])
    assert not name or says in alarms[0][1]
    assert list_raised() == []


def test_the_worst_group_is_named() -> None:
    few, many = estimate(1, 90, 10), estimate(1, 60, 40)
    found = [
        measure("lpips", "target", 0.3, 0.3),
        measure("artefact", "target", 0, 0.3),
        measure("artefact", "unseen", 0, estimate(0.5, 60, 40)),
        measure("artefact", "style", 0, 0.4),
        measure("diversity", "target", 0.4, 0.1),
        measure("diversity", "unseen", 0.8, 0.08),
        measure("diversity", "style", 0.4, 0.15),
        measure("psr1", "caption", 1, few),
        measure("psr1", "style", 1, many),
    ]
    said = dict(list_raised(*found))
    assert said[FLAT] == "group unseen: 50% under the edit, 0% before"
    assert said[ALIKE].startswith("group unseen: their diversity is 10%")
    assert said[UNSCORED].startswith("40% of the pictures behind artefact (unseen)")


def test_how_well_pictures_fit_their_prompts_counts_where_no_judge_knows_the_group() -> None:
    fit = measure("clip", "unseen", 0.3, 0.1)
    assert list_raised(fit, measure("psr1", "unseen", 0.9, 0.9)) == []
    for other in (
        measure("psr1", "caption", 0.9, 0.9),
        measure("psr5", "unseen", 0.9, 0.9),
        measure("psr1", "unseen", 0.9, 0.9, judge="one"),
    ):
        assert [name for name, _ in list_raised(fit, other)] == [COLLAPSED]


def test_each_scorer_that_failed_is_named_with_its_first_reason() -> None:
    found = find_alarms((), ROLES, {"one": (1, "OSError: cut"), "two": (3, "no memory")})
    assert [(alarm.name, alarm.raised_when) for alarm in found] == [
        ("a scorer failed", "one failed on 1 picture of base and edited model; first OSError: cut"),
        ("a scorer failed", "two failed on 3 pictures of base and edited model; first no memory"),
    ]


def test_kept_groups_that_were_not_drawn_beside_others_are_named() -> None:
    groups = {"neighbour": "near things", "unseen": "never seen", "style": "styles"}
    (alarm,) = warn_of_left_out(groups, ["unseen"])
    assert alarm.raised_when == "the suite has them, and they were not drawn: near things, styles"
    for drawn in ([*groups], [*groups, "seen"], []):
        assert warn_of_left_out(groups, drawn) == ()


def test_all_headline_groups_that_were_not_drawn_are_named_where_another_kept_group_was() -> None:
    """Kept groups that the fit may have used are no answer to a rule on kept things."""
    (alarm,) = warn_of_left_out({"neighbour": "near things", "unseen": "never seen"}, ["seen"])
    assert alarm.raised_when.endswith("they were not drawn: near things, never seen")


def test_targets_that_no_prompt_asks_for_are_named() -> None:
    (alarm,) = warn_of_untested(["dog", "owl"], "the target")
    assert (alarm.name, alarm.raised_when) == (UNTESTED, "no prompt (the target) asks for dog, owl")
    assert warn_of_untested([], "the target") == ()


def test_prompts_of_the_fit_are_told_from_a_twentieth_on() -> None:
    def warn(prompts: list[str], targets: list[str]) -> list[str]:
        return [alarm.raised_when for alarm in warn_of_fitted(prompts, targets, ["a {}", "{}"])]

    assert warn(["a cat", *["two cats"] * 19], ["cat"]) == []
    assert warn(["a cat", *["two cats"] * 18], ["cat"]) == [
        "1 of 19 prompts for the target are among the templates of the fit"
    ]
    assert warn(["cat", "dog"], ["cat", "dog", "car"]) == [], "a model of classes has no other prompts"
    assert warn([], ["cat"]) == []
