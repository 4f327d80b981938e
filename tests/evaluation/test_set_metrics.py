"""What is said of sets: features kept a chunk at a time, shared, and honest about what failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from efface.concept import Erasure
from efface.evaluation.alarms import find_alarms
from efface.evaluation.evaluate import check_scorers, evaluate
from efface.evaluation.images import VARIANTS, ImageSet
from efface.evaluation.protocols import Pool, Protocol
from efface.evaluation.set_metrics import Portion, _measure, list_portions
from efface.evaluation.trial import Unmeasured
from efface.models.adapters.sd import StableDiffusion
from efface.records.report import Estimate, Measure
from efface.scorers.base import Better, Spread
from efface.suites.rows import build
from efface.suites.spec import GroupSpec, Row, Suite, SuiteSpec
from efface.suites.world import World
from judging_fixtures import Planted


@dataclass(frozen=True)
class Means:
    """A network whose features are the means of the channels; fails on pictures that it does not like."""

    asked: list[int] = field(default_factory=list, compare=False)
    hates: float = -1.0
    """The mean of a first channel at which it raises."""

    @property
    def name(self) -> str:
        return "means"

    def identify(self) -> dict[str, str]:
        return {"features": "means", "hates": str(self.hates)}

    def extract_features(self, images: Tensor) -> Tensor:
        self.asked.append(len(images))
        found = images.double().mean((2, 3)).float()
        if (found[:, 0] - self.hates).abs().min() < 1e-4:
            raise RuntimeError("not this one")
        return found


@dataclass(frozen=True)
class Gap:
    """The difference of the sets' means."""

    version: ClassVar[str] = "1"
    title: ClassVar[str] = "gap"
    unit: ClassVar[str] = "of 255"
    better: ClassVar[Better] = "lower"
    share: ClassVar[bool] = False
    network: Means
    name: str = "gap"
    least: int = 2
    raises: bool = False

    @property
    def question(self) -> str:
        return "set"

    def identify(self) -> dict[str, str]:
        return {"scorer": "gap", "version": "1", "name": self.name, **self.network.identify()}

    def compare(self, base: Tensor, edited: Tensor, rows: Sequence[Row], side: int) -> tuple[Spread, Spread] | None:
        if self.raises:
            raise ArithmeticError("no gap today")
        if len(rows) < self.least:
            return None
        apart = float((edited - base).mean())
        return Spread(0.0, 0.0, 0.0, len(rows)), Spread(apart, apart - 1, apart + 1, len(rows))


@pytest.fixture(scope="module")
def suite(small: World) -> Suite:
    return build("glyphs-objects", Erasure(("cat",)), small, per_group=6, only=("target", "unseen"))


TRIED = 1
"""The picture that a network is shown before anything is drawn."""


@pytest.fixture(scope="module")
def image_store(model: StableDiffusion, suite: Suite, edit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("image store")
    evaluate(model, edit, suite, [Planted()], out)
    return out / "images"


def test_a_network_looks_once_at_every_picture_whoever_asks_and_never_again(
    model: StableDiffusion, suite: Suite, edit: Path, image_store: Path, tmp_path: Path
) -> None:
    network = Means()
    scorers = [Gap(network), Gap(Means(network.asked), name="other")]
    record = evaluate(model, edit, suite, scorers, tmp_path, image_store=image_store)
    assert sum(network.asked) == TRIED + 2 * len(suite.rows)
    again = evaluate(model, edit, suite, scorers, tmp_path, image_store=image_store)
    assert sum(network.asked) == TRIED + 2 * len(suite.rows) and again == record
    for group in ("target", "unseen"):
        m = record.find("gap", group, "means")
        assert m and m.unit == "number" and m.drop is None and m.edited.n == 6 and m.edited.unscored == 0
        assert m.edited.value and m.base.value == 0 and m.edited.low == m.edited.value - 1
    assert record.scorers["other"]["features"] == "means"


def test_damaged_features_are_made_again(
    model: StableDiffusion, suite: Suite, edit: Path, image_store: Path, tmp_path: Path
) -> None:
    network = Means()
    before = evaluate(model, edit, suite, [Gap(network)], tmp_path, image_store=image_store)
    for file in (tmp_path / "scores").rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:40])
    for file in (tmp_path / "scores").glob("gap-*/*.json"):
        file.write_text("{")
    assert evaluate(model, edit, suite, [Gap(network)], tmp_path, image_store=image_store) == before
    assert sum(network.asked) == TRIED + 4 * len(suite.rows)


def test_a_picture_that_the_network_fails_on_is_left_out_and_counted(
    model: StableDiffusion, suite: Suite, edit: Path, image_store: Path, tmp_path: Path
) -> None:
    first = suite.rows[0]
    shown = model.images([r.prompt for r in suite.rows], [r.seed for r in suite.rows], batch=len(suite.rows))
    hated = float(shown[0].double().mean((1, 2))[0])
    with pytest.warns(UserWarning, match="means gave no features of 1 picture; the first: RuntimeError: not this one"):
        record = evaluate(model, edit, suite, [Gap(Means(hates=hated))], tmp_path, image_store=image_store)
    m, other = record.find("gap", first.group, "means"), record.find("gap", "unseen", "means")
    assert m and (m.base.n, m.base.unscored, m.edited.n, m.edited.unscored) == (5, 1, 5, 1)
    assert other and (other.edited.n, other.edited.unscored) == (6, 0)
    assert "too many pictures unscored" in [a.name for a in record.alarms]


@dataclass(frozen=True)
class HalfGap(Gap):
    """Compares halves, as KID does, so that its number is of half as many pictures."""

    def compare(self, base: Tensor, edited: Tensor, rows: Sequence[Row], side: int) -> tuple[Spread, Spread] | None:
        found = Gap.compare(self, base, edited, rows, side)
        half = len(rows) // 2
        return found and (replace(found[0], n=half), replace(found[1], n=half))


@pytest.mark.parametrize(("lost", "told"), [(0, (50, 0)), (2, (49, 1)), (3, (48, 2)), (20, (40, 10)), (100, (0, 100))])
def test_unscored_pictures_are_counted_in_the_unit_of_the_set(lost: int, told: tuple[int, int], tmp_path: Path) -> None:
    """Of 100 rows 20 without features leave two halves of 40 of 50: a fifth has no score, not a third."""
    rows = [Row(f"g/cat/{i}", "a cat", i, "g", "keep", "object", "cat", ("cat",)) for i in range(100)]
    seen = {variant: {row.id: torch.ones(3) * i for i, row in enumerate(rows) if i >= lost} for variant in VARIANTS}
    paths = {variant: {row.id: f"{variant}/{i}.png" for i, row in enumerate(rows)} for variant in VARIANTS}
    images = ImageSet(rows, paths, tmp_path, 16)
    m = _measure(HalfGap(Means()), Portion("g", "group", rows), seen, images, tmp_path)
    assert m and (m.base.n, m.base.unscored) == (m.edited.n, m.edited.unscored) == told


def test_a_scorer_of_sets_that_raises_gives_none_and_is_counted(
    model: StableDiffusion, suite: Suite, edit: Path, image_store: Path, tmp_path: Path
) -> None:
    failing = Gap(Means(), raises=True)
    with pytest.raises(Unmeasured, match=r"gave no number for any picture.*failed: ArithmeticError: no gap today"):
        evaluate(model, edit, suite, [failing], tmp_path, image_store=image_store)
    record = evaluate(model, edit, suite, [Planted(), failing], tmp_path, image_store=image_store)
    m = record.find("gap", "target", "means")
    assert m and m.edited == Estimate(value=None, low=0, high=0, n=0, unscored=6)
    assert "failed: ArithmeticError: no gap today" in m.title
    assert "too many pictures unscored" in [a.name for a in record.alarms]


def test_too_few_pictures_leave_the_number_out_and_pools_join_groups(
    model: StableDiffusion, suite: Suite, edit: Path, image_store: Path, tmp_path: Path
) -> None:
    protocol = Protocol(
        name="ours",
        version="3",
        about="",
        source="",
        differs="",
        questions=("object",),
        suites=(),
        judges=(),
        headlines=("gap/both", "gap/both/0.5", "gap/nothing"),
        pools=(Pool("both", "all", ("target", "unseen")), Pool("none", "none", ("elsewhere",))),
    )
    assert [p.name for p in list_portions(suite, protocol.pools)] == ["target", "unseen", "both"]
    record = evaluate(model, edit, suite, [Gap(Means(), least=7)], tmp_path, image_store=image_store, protocol=protocol)
    (m,) = [m for m in record.measures if m.metric == "gap"]
    assert (m.group, m.edited.n) == ("both", 12)
    assert record.protocol and (record.protocol.name, record.protocol.version) == ("ours", "3")
    assert record.headlines == ("gap/both", "gap/both/0.5") and record.list_headlines() == [m]
    with pytest.raises(ValueError, match=r"another evaluation \(protocol"):
        evaluate(model, edit, suite, [Gap(Means(), least=7)], tmp_path, image_store=image_store)


def test_a_scorer_that_can_not_judge_says_so_before_anything_is_written(
    model: StableDiffusion, suite: Suite, edit: Path, tmp_path: Path
) -> None:
    @dataclass(frozen=True)
    class Picky(Gap):
        def check(self, rows: Sequence[Row]) -> None:
            raise ValueError(f"asked of {len(rows)}")

    with pytest.raises(ValueError, match="asked of 6"):
        evaluate(model, edit, suite, [Picky(Means())], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=r"share a name.*name=NAME"):
        check_scorers([Gap(Means()), Planted(name="gap")], suite)
    for name in ("all", "a/b", "..\\x", "a\nb"):
        with pytest.raises(ValueError, match=r"can't be called .*: give it another name"):
            check_scorers([Planted(name=name)], suite)
    with pytest.raises(
        ValueError, match="nudity is judged by detectors, such as nudenet or opennsfw, and witness is none"
    ):
        check_scorers([Planted(), Planted(question="nudity", name="witness")], suite)


def test_a_scorer_of_sets_is_asked_beforehand_about_the_largest() -> None:
    """Of groups of 1, 3 and 2 pictures; one of single pictures is asked about all 6."""
    told: list[int] = []

    @dataclass(frozen=True)
    class Sets(Gap):
        def check(self, rows: Sequence[Row]) -> None:
            told.append(len(rows))

    class Single(Planted):
        def check(self, rows: Sequence[Row]) -> None:
            told.append(len(rows))

    groups = tuple(GroupSpec(name, name, "keep", "object", 3, "object") for name in "abc")
    spec = SuiteSpec("by hand", "1", "", "", "", "labels", groups)
    rows = [Row(str(i), "a cat", i, name, "keep", "object", "cat", ("cat",)) for i, name in enumerate("abbbcc")]
    check_scorers([Sets(Means()), Single()], Suite(spec, ("dog",), tuple(rows)))
    assert told == [3, 6]


def measure(metric: str, group: str, base: float, edited: float, judge: str = "all") -> Measure:
    ends = [Estimate(value=v, low=0, high=1, n=10, unscored=0) for v in (base, edited)]
    return Measure(metric=metric, title="", group=group, judge=judge, base=ends[0], edited=ends[1], drop=None)


def test_alarms_of_pictures_that_are_none_and_of_pictures_that_are_alike() -> None:
    roles = {"target": "erase", "unseen": "keep", "caption": "keep"}
    fine = [
        measure("artefact", "unseen", 0.3, 0.39),
        measure("diversity", "target", 0.4, 0.21, "net"),
        measure("clip", "caption", 0.3, 0.22),
        measure("clip", "target", 0.3, 0.01),
    ]
    assert not find_alarms(fine, roles)
    raised = find_alarms(
        [
            *fine,
            measure("artefact", "target", 0.0, 0.11),
            measure("artefact", "unseen", 0.0, 0.5),
            measure("diversity", "unseen", 0.4, 0.1, "net"),
            measure("clip", "caption", 0.3, 0.2),
        ],
        roles,
    )
    said = {a.name: a.raised_when for a in raised}
    assert said["pictures are flat or noise"] == "group unseen: 50% under the edit, 0% before"
    assert "group unseen: their diversity is 25%" in said["pictures of a concept become alike"]
    assert "0.200 under the edit, 0.300 before" in said["kept concepts collapse"]
    judged = [measure("clip", "unseen", 0.3, 0.1), measure("psr1", "unseen", 0.9, 0.8)]
    assert not find_alarms(judged, roles)
