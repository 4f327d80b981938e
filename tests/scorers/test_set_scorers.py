"""KID, FID, precision, recall and diversity against implementations that share no code with ours or torchmetrics'."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor
from transformers import AutoModelForImageClassification, CLIPModel, ViTConfig, ViTForImageClassification

from efface.scorers._features import Features
from efface.scorers._sets import assign_clusters, jackknife, split_halves
from efface.scorers.base import SetScorer, TooFew
from efface.scorers.diversity import Diversity, measure_diversity
from efface.scorers.fid import Fid, fid
from efface.scorers.kid import Kid, kid
from efface.scorers.precision import Precision, measure_share_within
from efface.scorers.recall import Recall
from efface.suites.spec import Row
from judging_fixtures import write_bundle

ROW = Row("r", "a cat", 0, "unseen", "keep", "object", "cat", ("cat",))


def build_rows(n: int, concepts: int = 1) -> list[Row]:
    return [dataclasses.replace(ROW, id=str(i), concept=f"c{i % concepts}") for i in range(n)]


def draw_features(n: int, seed: int, shift: float = 0.0, d: int = 6) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).relu() + shift


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return write_bundle(tmp_path_factory.mktemp("bundle"))


def compute_kid_by_hand(x: Tensor, y: Tensor) -> float:
    def k(a: list[float], b: list[float]) -> float:
        return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    xs, ys = x.double().tolist(), y.double().tolist()
    same = [sum(k(a, b) for a, b in itertools.permutations(s, 2)) / (len(s) * (len(s) - 1)) for s in (xs, ys)]
    return sum(same) - 2 * sum(k(a, b) for a in xs for b in ys) / (len(xs) * len(ys))


def test_kid_is_the_unbiased_squared_mmd_of_the_cubic_kernel() -> None:
    x, y = draw_features(12, 1), draw_features(12, 2, shift=0.3)
    assert kid(x, y) == pytest.approx(compute_kid_by_hand(x, y), rel=1e-9)


def test_kid_of_large_or_unequal_sets_is_the_mean_over_equal_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("efface.scorers.kid.BLOCK", 5)
    x, y = draw_features(10, 1), draw_features(10, 2)
    blocks = [(x[i::2], y[i::2]) for i in range(2)]
    assert kid(x, y) == pytest.approx(sum(compute_kid_by_hand(a, b) for a, b in blocks) / 2, rel=1e-9)
    x, y = draw_features(11, 4), draw_features(12, 5)
    expected = [compute_kid_by_hand(x[i::3], y[i::3]) for i in range(3)]
    assert kid(x, y) == pytest.approx(sum(expected) / 3, rel=1e-9), "11 pictures are three blocks, and not one of 5"


def test_kid_of_unequal_sets_compares_every_picture_with_every_other() -> None:
    x, longer = draw_features(10, 1), draw_features(31, 3)
    assert kid(x, longer) == pytest.approx(compute_kid_by_hand(x, longer), rel=1e-9)


def test_leaving_rows_out_leaves_the_others_in_their_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """11 rows in blocks of at most 5 are three blocks, also without rows 0 and 4."""
    monkeypatch.setattr("efface.scorers.kid.BLOCK", 5)
    x, y, longer = draw_features(11, 4), draw_features(11, 5), draw_features(33, 6)
    at = torch.tensor([1, 2, 3, 5, 6, 7, 8, 9, 10])
    blocks = [[3, 6, 9], [1, 7, 10], [2, 5, 8]]
    scorer = Kid(folder="none")
    by_hand = [compute_kid_by_hand(x[rows], y[rows]) for rows in blocks]
    assert scorer.compute_at(x, y, at, paired=True) == pytest.approx(sum(by_hand) / 3, rel=1e-9)
    # Of the 11 rows of each of three blocks of a reference there are 5, whatever rows of the other set are left.
    known = [[i + 3 * place for place in (0, 2, 5, 7, 10)] for i in range(3)]
    by_hand = [compute_kid_by_hand(longer[some], y[rows]) for some, rows in zip(known, blocks, strict=True)]
    assert scorer.compute_at(longer, y, at, paired=False) == pytest.approx(sum(by_hand) / 3, rel=1e-9)


def test_more_pictures_give_kid_a_narrower_interval_beyond_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two blocks of 100 that lost a row in twenty became one block of 100 of 190 rows, so that twice as many pictures
    gave a wider interval.
    """
    monkeypatch.setattr("efface.scorers.kid.BLOCK", 100)

    def measure_width(n: int) -> float:
        sets = [[draw_features(n, seed + 10 * side) for side in (1, 2)] for seed in range(6)]
        found = [Kid(folder="none").compare(base, edited, build_rows(n), 16) for base, edited in sets]
        return sum(each[0].high - each[0].low for each in found if each)

    assert measure_width(400) < measure_width(200)


def test_fid_is_the_frechet_distance_of_two_normals() -> None:
    x, y = draw_features(40, 1).double().numpy(), draw_features(50, 2, shift=0.3).double().numpy()
    root = sqrtm(np.cov(x.T) @ np.cov(y.T))
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root.real)
    assert fid(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("k", [1, 3])
def test_precision_counts_what_lies_within_reach_of_a_known_picture(k: int) -> None:
    known, x = draw_features(15, 1), draw_features(12, 2, shift=0.4)
    inside = 0
    for point in x.tolist():
        for centre in known.tolist():
            others = sorted(math.dist(centre, other) for other in known.tolist() if other != centre)
            if math.dist(point, centre) <= others[k - 1]:
                inside += 1
                break
    assert 0 < inside < 12
    assert measure_share_within(known, x, k) == pytest.approx(inside / 12)


def test_diversity_is_the_mean_distance_of_pairs_of_one_concept() -> None:
    x, names = draw_features(7, 1, shift=0.1), ["a", "b", "a", "b", "a", "b", "b"]
    means = []
    for name in "ab":
        own = [x[i].double().numpy() for i in range(7) if names[i] == name]
        pairs = list(itertools.combinations(own, 2))
        means.append(np.mean([1 - p @ q / np.linalg.norm(p) / np.linalg.norm(q) for p, q in pairs]))
    assert measure_diversity(x, names) == pytest.approx(np.mean(means), rel=1e-9)
    assert measure_diversity(x[:1].expand(5, -1), ["a"] * 5) == pytest.approx(0, abs=1e-12)


def test_halves_are_disjoint_equal_and_share_the_concepts_evenly() -> None:
    asked = build_rows(13, concepts=3)
    a, b = split_halves(asked)
    assert len(a) == len(b) == 6 and not set(a.tolist()) & set(b.tolist())
    for concept in ("c0", "c1", "c2"):
        count = [sum(asked[i].concept == concept for i in half.tolist()) for half in (a, b)]
        assert abs(count[0] - count[1]) <= 1


def test_the_base_number_is_of_its_halves_and_the_edited_number_of_both_across() -> None:
    base, edited, asked = draw_features(40, 1), draw_features(40, 2, shift=0.2), build_rows(40)
    found = Kid(folder="-").compare(base, edited, asked, 16)
    assert found
    before, after = found
    assert before.value == pytest.approx(compute_kid_by_hand(base[0::2], base[1::2]), rel=1e-9)
    across = compute_kid_by_hand(base[0::2], edited[1::2]), compute_kid_by_hand(base[1::2], edited[0::2])
    assert after.value == pytest.approx(sum(across) / 2, rel=1e-9)
    assert (before.n, after.n) == (20, 20)


@pytest.mark.parametrize("scorer", [Kid(folder="-"), Fid(folder="-", least=20), Precision(folder="-")])
def test_an_edit_that_changes_nothing_gives_the_base_number(scorer: SetScorer) -> None:
    """Compared picture by picture with itself, KID would fall under zero and FID be zero."""
    base = draw_features(60, 1)
    found = scorer.compare(base, base.clone(), build_rows(60), 16)
    assert found and found[0].value is not None
    assert found[0].value == pytest.approx(found[1].value, rel=0.15)


def test_a_shift_is_told_from_chance_and_the_interval_says_so() -> None:
    for shift, apart in ((0.0, False), (0.5, True)):
        found = Kid(folder="-").compare(draw_features(200, 1), draw_features(200, 2, shift), build_rows(200, 10), 16)
        assert found
        before, after = found
        assert (after.low > before.high) == apart
        assert before.low < 0 < before.high


def test_intervals_leave_out_one_cluster_at_a_time() -> None:
    """For a mean over clusters of one row, the jackknife's variance is the sample variance over n, exactly."""
    x = draw_features(12, 5)[:, 0].double()
    found = jackknife(lambda at: float(x[at].mean()), assign_clusters([str(i) for i in range(12)]), 12)
    half = 1.959963984540054 * float(x.std()) / math.sqrt(12)
    assert (found.low, found.high) == pytest.approx((float(x.mean()) - half, float(x.mean()) + half))
    assert len(assign_clusters([f"{i}" for i in range(50)]).unique()) == 20
    assert len(assign_clusters(["one"] * 50).unique()) == 20 and len(assign_clusters(["a", "b", "a"]).unique()) == 3
    assert assign_clusters([f"c{i % 10}" for i in range(30)]).tolist() == [i % 10 for i in range(30)]
    assert jackknife(lambda at: float(x[at].mean()), assign_clusters(["a"] * 12), 12, (0.0, 0.5)).high == 0.5


def test_too_few_pictures_give_no_number() -> None:
    assert Kid(folder="-").compare(draw_features(39, 1), draw_features(39, 2), build_rows(39), 16) is None
    assert Diversity(folder="-").compare(draw_features(40, 1), draw_features(40, 2), build_rows(40, 20), 16) is None
    assert Fid(folder="-").compare(draw_features(400, 1), draw_features(400, 2), build_rows(400), 16) is None


def test_recall_is_precision_the_other_way_round() -> None:
    base, edited = draw_features(60, 1), draw_features(60, 2)[:1].expand(60, -1) + 1e-6 * draw_features(60, 3)
    a, b = split_halves(build_rows(60))
    precision = Precision(folder="-").compare(base, edited, build_rows(60), 16)
    recall = Recall(folder="-").compare(base, edited, build_rows(60), 16)
    assert precision and recall and recall[1].value == 0
    ways = [measure_share_within(edited[y], base[x], 3) for x, y in ((a, b), (b, a))]
    assert recall[1].value == pytest.approx(sum(ways) / 2)
    assert precision[1].value in (0, 0.5, 1)


def draw_noise(n: int = 5) -> Tensor:
    return torch.randint(0, 256, (n, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.mark.parametrize("kind", ["object-resnet", "object-convnext"])
def test_features_of_a_classifier_are_what_its_last_layer_reads(kind: str, bundle: Path) -> None:
    folder = bundle / "judges" / kind
    network = AutoModelForImageClassification.from_pretrained(folder).eval()
    seen = Features(str(folder), batch=2).extract_features(draw_noise())
    last = [m for m in network.modules() if isinstance(m, torch.nn.Linear)][-1]
    with torch.no_grad():
        logits = network(pixel_values=draw_noise().float() / 127.5 - 1).logits
        torch.testing.assert_close(last(seen), logits, rtol=1e-4, atol=1e-5)


def test_features_of_a_vit_and_of_a_clip(bundle: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vit = ViTForImageClassification(ViTConfig(image_size=16, patch_size=8, num_labels=5, **sizes)).eval()
    vit.save_pretrained(tmp_path)
    facts = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}, "do_resize": True}
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps(facts | {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    )
    seen = Features(str(tmp_path)).extract_features(draw_noise())
    clip = CLIPModel.from_pretrained(bundle / "clip").eval()
    with torch.no_grad():
        pixels = draw_noise().float() / 127.5 - 1
        torch.testing.assert_close(vit.classifier(seen), vit(pixel_values=pixels).logits, rtol=1e-4, atol=1e-5)
        embedded = torch.nn.functional.normalize(Features(str(bundle / "clip")).extract_features(draw_noise()))
        words = torch.zeros(1, 2, dtype=torch.long)
        expected = clip(input_ids=words, pixel_values=pixels).image_embeds
        torch.testing.assert_close(embedded, expected, rtol=1e-4, atol=1e-5)


def test_the_network_is_named_and_a_missing_one_is_an_error_before_any_drawing(bundle: Path) -> None:
    folder = str(bundle / "judges" / "object-resnet")
    assert Kid(folder=folder).network.name == "object-resnet" and Kid().network.name == "inception-v3"
    assert Kid(folder=folder).identify()["weights"] != Kid(folder=str(bundle / "clip")).identify()["weights"]
    Kid(folder=folder).check(build_rows(2))
    with pytest.raises(TooFew, match=r"needs 2000 pictures in each set, and the largest has 50; kid would have"):
        Fid(folder=folder).check(build_rows(100))
    Fid(folder=folder, least=50).check(build_rows(100))
    with pytest.raises(ValueError, match="needs an image classifier or a CLIP"):
        Kid(folder=str(bundle / "model" / "text_encoder")).check(build_rows(2))


@pytest.mark.skipif(importlib.util.find_spec("torch_fidelity") is not None, reason="the package is installed")
def test_inception_without_its_package_names_what_brings_it() -> None:
    """The extra `fid` does not install torch-fidelity."""
    with pytest.raises(ValueError, match=r"kid with Inception's features needs torch_fidelity, .*'torch-fidelity'"):
        Kid().check(build_rows(2))
