"""What every scorer owes, walked over the folder: a new one is tested unasked."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from efface.evaluation.judging import score_safely
from efface.scorers import Judge, build_scorers, names
from efface.scorers._specs import get
from efface.scorers.base import JUDGED, Checked, Scorer, Selective, SetScorer, name_kind, require_declared
from efface.suites.spec import Row
from judging_fixtures import GROUNDS, THINGS, write_bundle

COLOURS = {name: (r, g, b) for name, (r, g, b) in GROUNDS.items()}
ROW = Row("r", "a cat", 0, "target", "erase", "object", "cat", ("cat",), thing="cat", style="flat", background="white")
PACKAGES = {"nudenet": "nudenet", "lpips": "torchvision"}
"""What a scorer cannot be asked without, beside what the tests need anyway."""
KINDS = [kind for kind in names() if kind not in PACKAGES or importlib.util.find_spec(PACKAGES[kind])]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return write_bundle(tmp_path_factory.mktemp("bundle"))


def build_scorer(kind: str, bundle: Path) -> Judge:
    """The scorer with the tiny networks of the bundle; of a set of 16 pictures it gives a number."""
    settings = {f.name for f in dataclasses.fields(get(kind))}
    words = f"classifier:{bundle / 'judges' / 'object-resnet'}" if kind == "classifier" else kind
    words += ",least=4" if "least" in settings else ""
    (scorer,) = build_scorers(bundle, COLOURS, [words], {"object": THINGS})
    return scorer


def build_pictures(n: int = 16) -> Tensor:
    """White, black and grey pictures, and noise, uint8 [n, 3, 16, 16]."""
    images = torch.randint(0, 256, (n, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    for i, level in enumerate((255, 0, 128)):
        images[i] = level
    return images


def build_rows(n: int = 16) -> list[Row]:
    return [dataclasses.replace(ROW, id=str(i), seed=i, concept=THINGS[i % 2]) for i in range(n)]


def test_no_scorer_is_left_out_but_for_a_package_that_is_not_installed() -> None:
    assert set(names()) - set(KINDS) <= set(PACKAGES)
    assert {"artefact", "background", "classifier", "clip", "kid", "pixels"} <= set(KINDS)


@pytest.mark.parametrize("kind", names())
def test_every_scorer_declares_what_its_number_is(kind: str, bundle: Path) -> None:
    scorer = build_scorer(kind, bundle)
    require_declared(scorer)
    assert all(isinstance(text, str) and text.strip() for text in (scorer.title, scorer.unit, scorer.question))
    assert scorer.better in ("higher", "lower") and isinstance(scorer.share, bool)
    for name in ("title", "unit", "better", "share"):
        assert name not in {f.name for f in dataclasses.fields(scorer)}  # type: ignore[arg-type]
    assert isinstance(scorer, Scorer) != isinstance(scorer, SetScorer)
    if scorer.share:
        assert find_limits(scorer) == (0, 1)


def find_limits(scorer: Any) -> tuple[float, float]:
    return scorer.bounds


@pytest.mark.parametrize("kind", KINDS)
def test_the_identity_is_stable_and_depends_on_every_setting(kind: str, bundle: Path) -> None:
    one, other = build_scorer(kind, bundle), build_scorer(kind, bundle)
    assert one == other and one.identify() == other.identify() and name_kind(one) == kind
    assert all(isinstance(value, str) for value in one.identify().values())
    assert one.identify()["version"] == one.version
    newer = type("Newer", (type(one),), {"version": f"{one.version}+"})
    fields = {f.name: getattr(one, f.name) for f in dataclasses.fields(one)}  # type: ignore[arg-type]
    assert newer(**fields).identify() != one.identify()


@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_known_pictures_are_within_the_declared_bounds(kind: str, bundle: Path) -> None:
    scorer, images = build_scorer(kind, bundle), build_pictures()
    if isinstance(scorer, Checked):
        scorer.check(build_rows())
    low, high = find_limits(scorer)
    if isinstance(scorer, SetScorer):
        features = torch.rand(16, 8, generator=torch.Generator().manual_seed(2))
        found = scorer.compare(features, features.flip(0), build_rows(), 16)
        assert found is not None
        for number in found:
            assert number.value is not None and low <= number.value <= high + 1e-6 and number.n > 0
        return
    values = [score.value for score in scorer.score(images, build_rows(), images.flip(0))]
    assert len(values) == 16 and all(v is not None and low - 1e-6 <= v <= high + 1e-6 for v in values)
    if scorer.share:
        assert set(values) <= {0.0, 1.0}
    if scorer.question == "change":
        same = [score.value for score in scorer.score(images, build_rows(), images)]
        best = max if scorer.better == "higher" else min
        assert all(v is not None and best(v, w or 0.0) == v for v, w in zip(same, values, strict=True))


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind not in ("kid", "fid", "precision", "recall", "diversity")]
)
def test_a_picture_that_cannot_be_judged_is_none_and_no_number(kind: str, bundle: Path) -> None:
    scorer = build_scorer(kind, bundle)
    assert isinstance(scorer, Scorer)
    broken = torch.zeros(1, 3, 0, 0, dtype=torch.uint8)
    (score,), failed = score_safely(scorer, broken, [ROW], torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    assert score.value is None and not score.answer and failed == 1
    if isinstance(scorer, Selective):
        other = dataclasses.replace(ROW, background="")
        (unasked,) = scorer.score(build_pictures()[:1], [other], build_pictures()[:1])
        assert unasked.value is None and not scorer.concerns(other)


def test_judges_answer_in_labels(bundle: Path) -> None:
    """Of a judge the labels count: it names at least one for every picture."""
    for kind in KINDS:
        scorer = build_scorer(kind, bundle)
        if isinstance(scorer, Scorer) and scorer.question in JUDGED and kind != "nudenet":
            assert all(score.answer for score in scorer.score(build_pictures(), build_rows(), build_pictures()))


def explain_refusal(**attributes: Any) -> str:
    """Why a scorer with these class attributes is refused."""

    def identify(_: object) -> dict[str, str]:
        return {"scorer": "made up"}

    def score(_: object, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Any]:
        return []

    whole = {"name": "made-up", "question": "mood", "version": "1", "identify": identify, "score": score}
    with pytest.raises(ValueError) as error:
        require_declared(type("MadeUp", (), {**whole, **attributes})())
    return str(error.value)


def test_a_scorer_whose_numbers_cannot_be_shown_is_refused() -> None:
    said = {"title": "mood", "unit": "points", "better": "higher", "share": False}
    assert "made-up does not declare title, unit, better, share" in explain_refusal()
    assert "does not declare share, so its numbers could not be shown" in explain_refusal(
        title="m", unit="p", better="lower"
    )
    assert "better is 'more'; it is 'higher' or 'lower'" in explain_refusal(**{**said, "better": "more"})
    assert "neither a `score`" in explain_refusal(**said, score=None)
