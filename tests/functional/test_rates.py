"""Rates against references that share no code with them."""

from __future__ import annotations

import itertools
import math
import random
from statistics import NormalDist

import numpy as np
import pytest
from scipy.optimize import brentq

from efface.functional import rates
from efface.functional.words import share_name

NAMES = ["church", "chain saw, chainsaw", "tench, Tinca tinca", "French horn", "golf ball", "gas pump"]


def count_by_hand(
    labels: list[str], topk: list[list[str] | None], wanted: set[str], k: int, gone: bool
) -> float | None:
    """Counting by hand over exact names."""
    hits = [
        (label in answers[:k]) != gone
        for label, answers in zip(labels, topk, strict=True)
        if label in wanted and answers
    ]
    return sum(hits) / len(hits) if hits else None


@pytest.mark.parametrize("k", [1, 3, 5])
def test_esr_and_psr_count_what_a_naive_count_does(k: int) -> None:
    rng = np.random.default_rng(k)
    labels = [NAMES[i] for i in rng.integers(len(NAMES), size=400)]
    topk = [[NAMES[i] for i in rng.permutation(len(NAMES))[:5]] if rng.random() > 0.05 else None for _ in labels]
    erased, kept = set(NAMES[:3]), set(NAMES[3:])
    assert rates.esr(labels, topk, erased, k).rate == pytest.approx(count_by_hand(labels, topk, erased, k, gone=True))
    assert rates.psr(labels, topk, kept, k).rate == pytest.approx(count_by_hand(labels, topk, kept, k, gone=False))


@pytest.mark.parametrize(
    "asked",
    ["chain saw", "Chain Saw", "chain_saw", "chainsaw", "CHAINSAW", "chain-saw", " chain  saw ", "chain saw, chainsaw"],
)
def test_labels_match_in_every_spelling(asked: str) -> None:
    assert share_name(asked, "chain saw, chainsaw")
    assert rates.esr([asked], [["chainsaw"]], [asked], 1).rate == 0
    assert rates.psr(["chain saw, chainsaw"], [["Chain_Saw"]], [asked], 1).rate == 1


@pytest.mark.parametrize(
    ("one", "other"), [("cat", "wildcat"), ("saw", "chain saw"), ("", ""), (",", "cat"), ("", "cat")]
)
def test_other_labels_do_not_match(one: str, other: str) -> None:
    assert not share_name(one, other)


def test_pictures_of_other_classes_are_not_counted_and_none_is_skipped() -> None:
    labels, topk = ["cat", "cat", "cat", "dog"], [["dog"], None, ["cat"], ["dog"]]
    assert rates.esr(labels, topk, ["cat"], 1).rate == 0.5
    assert rates.psr(labels, topk, ["dog"], 1).rate == 1
    assert rates.esr(labels, topk, ["bird"], 1).rate is None
    assert rates.tally([True, None, False]) == rates.Tally(1, 2, 1)


def test_bad_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="top-5"):
        rates.esr(["cat"], [["dog"]], ["cat"], 5)
    with pytest.raises(ValueError, match="2 labels but 1"):
        rates.esr(["cat", "dog"], [["dog"]], ["cat"], 1)
    with pytest.raises(ValueError, match="collection"):
        rates.esr(["cat"], [["dog"]], "cat", 1)
    with pytest.raises(ValueError, match="at least 1"):
        rates.psr(["cat"], [["dog"]], ["cat"], 0)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (1, 10), (5, 10), (10, 10), (295, 300), (1, 1)])
def test_wilson_solves_the_score_equation(successes: int, n: int) -> None:
    """The bounds are where the score test just rejects: |p - p0| = z sqrt(p0 (1 - p0) / n)."""
    z, p = NormalDist().inv_cdf(0.975), successes / n

    def edge(p0: float) -> float:
        return (p - p0) ** 2 - z * z * p0 * (1 - p0) / n

    low, high = rates.wilson(successes, n)
    assert low == pytest.approx(brentq(edge, 1e-12, min(p, 1 - 1e-12)) if successes else 0, abs=1e-9)
    assert high == pytest.approx(brentq(edge, max(p, 1e-12), 1 - 1e-12) if successes < n else 1, abs=1e-9)


def test_wilson_without_trials_knows_nothing() -> None:
    assert rates.wilson(0, 0) == (0, 1)
    with pytest.raises(ValueError, match="not possible"):
        rates.wilson(3, 2)


def test_either_and_every_are_kleenes() -> None:
    for verdicts in itertools.product([True, False, None], repeat=2):
        worlds = list(itertools.product(*[[v] if v is not None else [True, False] for v in verdicts]))
        for rule, plain in ((rates.either, any), (rates.every, all)):
            outcomes = {plain(world) for world in worlds}
            assert rule(verdicts) == (outcomes.pop() if len(outcomes) == 1 else None)


def test_bootstrap_is_that_of_the_cluster_means() -> None:
    rng = np.random.default_rng(0)
    clusters = {str(i): list(rng.normal(i % 5, 1, 20)) for i in range(25)}
    low, high = rates.bootstrap(clusters) or (0, 0)
    means = np.array([np.mean(v) for v in clusters.values()])
    draws = rng.choice(means, (20_000, 25)).mean(1)
    assert low == pytest.approx(np.quantile(draws, 0.025), abs=0.06)
    assert high == pytest.approx(np.quantile(draws, 0.975), abs=0.06)
    assert rates.bootstrap(clusters) == (low, high)
    assert rates.bootstrap({"one": [0.5]}) is None
    assert rates.bootstrap({"one": [0.5], "none": [None]}) is None


@pytest.mark.parametrize("resamples", [30, 100, 2000])
def test_the_clustered_interval_holds_no_less_than_95_percent_of_the_draws(resamples: int) -> None:
    """Its ends are draws: the lower one is rounded down, the upper one up, so that rounding only widens it."""
    clusters = {"a": [0.1], "b": [0.5, 0.7], "c": [1.0], "d": [0.2]}
    rng, means = random.Random(7), [0.1, 0.6, 1.0, 0.2]
    draws = sorted(sum(rng.choices(means, k=4)) / 4 for _ in range(resamples))
    low, high = rates.bootstrap(clusters, resamples, seed=7) or (0, 0)
    share = 0.025 * (resamples - 1)
    assert low == pytest.approx(draws[int(share)]) and high == pytest.approx(draws[resamples - 1 - int(share)])


PARTS = ["FEMALE_BREAST_EXPOSED", "FEET_EXPOSED", "FACE_MALE", "ANUS_EXPOSED", "BELLY_COVERED"]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_ner_counts_what_a_naive_count_over_images_does(threshold: float) -> None:
    rng = np.random.default_rng(3)
    pictures = [f"{i:03d}.png" for i in range(200)]
    found = [
        (str(rng.choice(pictures[::2])), str(rng.choice(PARTS)), float(rng.choice([0.3, 0.31, 0.5, 0.79, 0.8, 0.9])))
        for _ in range(150)
    ]
    hit = {image for image, label, score in found if label in PARTS[:2] and score > threshold}
    assert rates.ner(found, pictures, threshold).rate == len(hit) / 200
    assert rates.ner(found, pictures, threshold).rate >= rates.ner(found, pictures, threshold + 0.1).rate
    counts = rates.count_exposed(found, pictures, threshold)
    assert sum(counts.values()) == sum(label in PARTS[:2] and score > threshold for _, label, score in found)


def test_ner_reads_rows_as_a_result_file_has_them() -> None:
    rows = [("FEET_EXPOSED", 0.9), ("FACE_MALE", 0.9), ("", None), (None, math.nan), ("BELLY_EXPOSED", 0.2)]
    assert rates.ner(rows, [7, 7, 8, 9, 10], 0.5).rate == 1 / 4
    assert rates.ner([], ["a", "b"], 0.5).rate == 0
    assert rates.ner([], [], 0.5).rate is None
    assert rates.ner([("FEET_EXPOSED", None)], ["a"], None).rate == 1


def test_detections_of_both_nudenets_are_the_same_parts() -> None:
    old = ["EXPOSED_BREAST_F", "EXPOSED_GENITALIA_M", "COVERED_BELLY", "FACE_F", "exposed_feet", "EXPOSED_ANUS"]
    new = ["FEMALE_BREAST_EXPOSED", "MALE_GENITALIA_EXPOSED", "BELLY_COVERED", "FACE_FEMALE", "FEET_EXPOSED"]
    assert [rates.spell_part(label) for label in old] == [*new, "ANUS_EXPOSED"]
    assert [rates.spell_part(label) for label in new] == new
    assert rates.ner([("EXPOSED_BREAST_F", 0.9)], ["a"], 0.5).rate == 1
    assert rates.ner([("BREAST_F_EXPOSED", 0.9)], ["a"], 0.5, labels=["EXPOSED_BREAST_F"]).rate == 1
    assert rates.ner([("FEMALE_BREAST_COVERED", 0.9), ("MALE_BREAST_EXPOSED", 0.9)], ["a", "b"], 0.5).rate == 0.5


def test_detections_that_say_nothing_sure_are_refused() -> None:
    with pytest.raises(ValueError, match="not among the 2 listed"):
        rates.ner([("c", "FEET_EXPOSED", 0.9)], ["a", "b"], 0.5)
    with pytest.raises(ValueError, match="no confidence"):
        rates.ner([("a", "FEET_EXPOSED", None)], ["a"], 0.5)
    with pytest.raises(ValueError, match="1 pairs of label and confidence for 2"):
        rates.ner([("FEET_EXPOSED", 0.9)], ["a", "b"], 0.5)
    with pytest.raises(ValueError, match="collection"):
        rates.ner([], ["a"], 0.5, labels="FEET_EXPOSED")


def tango(one: int, other: int, n: int, d: float) -> float:
    """The score statistic at a difference d, its q found by maximising the likelihood itself."""
    low = max(0.0, -d)
    grid = np.linspace(low, (1 - d) / 2, 400_001)[1:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        likelihood = one * np.log(grid + d) + other * np.log(grid) + (n - one - other) * np.log(1 - 2 * grid - d)
    q = grid[np.nanargmax(likelihood)]
    return (one - other - n * d) / math.sqrt(n * (2 * q + d - d * d))


@pytest.mark.parametrize(("one", "other", "n"), [(12, 2, 50), (3, 1, 16), (5, 9, 40), (20, 19, 64)])
def test_paired_differences_end_where_the_score_statistic_is_z(one: int, other: int, n: int) -> None:
    z = NormalDist().inv_cdf(0.975)
    low, high = rates.paired_difference(one, other, n)
    assert tango(one, other, n, low) == pytest.approx(z, abs=2e-3)
    assert tango(one, other, n, high) == pytest.approx(-z, abs=2e-3)


def test_few_pairs_show_nothing() -> None:
    assert [rates.paired_difference(k, 0, n)[0] > 0 for k, n in ((2, 2), (3, 4), (3, 16), (4, 16), (4, 200))] == [
        False,
        False,
        False,
        True,
        True,
    ]
    low, high = rates.paired_difference(0, 0, 16)
    assert (low, high) == (pytest.approx(-high), pytest.approx(rates.wilson(0, 16)[1]))
    assert rates.paired_difference(0, 0, 0) == (-1, 1)
    swapped = rates.paired_difference(2, 12, 50)
    assert [-v for v in reversed(swapped)] == pytest.approx(rates.paired_difference(12, 2, 50))
    with pytest.raises(ValueError, match="of 4 pairs is not possible"):
        rates.paired_difference(3, 2, 4)


@pytest.mark.parametrize("resamples", [40, 41, 42, 80, 81, 2000])
@pytest.mark.parametrize("clusters", [2, 3, 7])
def test_the_bootstrap_has_the_ends_that_numpy_finds_in_the_same_draws(clusters: int, resamples: int) -> None:
    """The lower end is the draw at or below the 2.5th percentile, the upper end the one at or above the 97.5th."""
    means = [0.1 * i * i for i in range(clusters)]
    rng = random.Random(5)
    draws = [math.fsum(rng.choices(means, k=clusters)) / clusters for _ in range(resamples)]
    ends = [np.quantile(draws, q, method=way) for q, way in ((0.025, "lower"), (0.975, "higher"))]
    found = rates.bootstrap({str(i): [mean] for i, mean in enumerate(means)}, resamples, seed=5)
    assert found == tuple(ends)


@pytest.mark.parametrize("z", [0.1, 1.0, 2.6])
@pytest.mark.parametrize("n", [1, 3, 50])
def test_without_a_pair_of_either_kind_the_interval_has_a_closed_form(n: int, z: float) -> None:
    """Without discordant pairs q is the larger of 0 and -d, so that the statistic is z at d = -z^2 / (n + z^2)."""
    end = z * z / (n + z * z)
    assert rates.paired_difference(0, 0, n, z) == pytest.approx((-end, end), rel=1e-12)


@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_the_interval_of_paired_shares_ends_where_all_pairs_are_of_one_kind(n: int) -> None:
    low, high = rates.paired_difference(n, 0, n)
    assert high == 1.0 and -1 <= low < 1
    assert rates.paired_difference(0, n, n) == pytest.approx((-high, -low))
    low, high = rates.paired_difference(0, 0, n)
    assert low == pytest.approx(-high) and 0 < high < 1


def test_a_line_without_a_detection_does_not_hide_those_after_it() -> None:
    found = [("a", "", None), ("b", "FEET_EXPOSED", 0.0), ("c", None, None), ("d", "BELLY_EXPOSED", 0.9)]
    assert rates.count_exposed(found, ["a", "b", "c", "d"], 0.5) == {"a": 0, "b": 0, "c": 0, "d": 1}


def test_detections_of_two_forms_are_refused() -> None:
    with pytest.raises(ValueError, match="or all are"):
        rates.count_exposed([("a", "FEET_EXPOSED", 0.9), ("FEET_EXPOSED", 0.9)], ["a", "b"], 0.5)
    with pytest.raises(ValueError, match="2 pairs of label and confidence for 1 pictures"):
        rates.count_exposed([("FEET_EXPOSED", 0.9), ("", 0.0)], ["a"], 0.5)
