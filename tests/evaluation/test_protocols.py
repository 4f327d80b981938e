"""Declared protocols: their suites, and their pooled numbers against counts by hand."""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from torch import Tensor

from efface.cli.app import main
from efface.concept import Erasure
from efface.evaluation import protocols
from efface.evaluation.judging import VARIANTS, ScoreTable
from efface.functional.rates import wilson
from efface.scorers.base import Better, Score
from efface.suites import make_suite, world
from efface.suites.rows import build
from efface.suites.spec import Row, Suite, list_names
from judging_fixtures import STYLES, THINGS


@dataclass(frozen=True)
class Fake:
    """A judge whose scores the test makes."""

    version: ClassVar[str] = "1"
    title: ClassVar[str] = "made up"
    unit: ClassVar[str] = "of 1"
    better: ClassVar[Better] = "higher"
    share: ClassVar[bool] = False
    name: str
    question: str

    def identify(self) -> dict[str, str]:
        return {"scorer": "fake", "version": self.version, "asks": self.question}

    def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
        raise AssertionError("tables are made here, nobody is asked")


JUDGES = (Fake("object-a", "object"), Fake("object-b", "object"), Fake("style-a", "style"))


def build_scored(suite: Suite, seed: int = 0) -> ScoreTable:
    """Random answers: the right one first in about half of the pictures."""
    rng = random.Random(seed)
    scores: dict[str, dict[str, list[Score]]] = {variant: {} for variant in VARIANTS}
    for variant in VARIANTS:
        for judge in JUDGES:
            found = []
            for row in suite.rows:
                labels = list(THINGS if judge.question == "object" else (*STYLES, *"stuvwx"))
                rng.shuffle(labels)
                wanted = row.thing if judge.question == "object" else row.style
                if wanted and rng.random() < 0.5:
                    labels.remove(wanted)
                    labels.insert(0, wanted)
                found.append(Score(rng.random(), tuple(labels[:6])))
            scores[variant][judge.name] = found
    return ScoreTable(suite.rows, JUDGES, scores)


def compute_by_hand(
    table: ScoreTable, variant: str, rows: list[int], field: str, role: str, judges: list[str]
) -> list[bool]:
    """Is the row's thing or style first among its judges' answers: by any of them, or by all?"""
    seen = [
        [
            getattr(table.rows[i], field) in table.scores[variant][j][i].answer[: 1 + bool(table.rows[i].second)]
            for j in judges
        ]
        for i in rows
    ]
    return [any(s) for s in seen] if role == "erase" else [all(s) for s in seen]


def test_every_protocol_is_whole_and_its_suites_are_there() -> None:
    assert protocols.list_protocols() == ["canvas", "ddpm-class", "esr-psr", "ner"]
    for name in protocols.list_protocols():
        found = protocols.find_protocol(name)
        assert found.version and found.about and found.source and found.differs
        assert set(found.suites) <= set(list_names())
        there = {p.name for p in found.pools} | {"target"}
        assert {a.over for a in found.aggregates} <= there
        assert {h.split("/")[1] for h in found.headlines} <= there
    with pytest.raises(ValueError, match="no protocol 'esr'; did you mean"):
        protocols.find_protocol("esr")


def test_esr_psr_pools_every_kept_class(small: world.World) -> None:
    suite = build("glyphs-objects", Erasure(("cat",)), small, per_group=30)
    table = build_scored(suite)
    found = {
        (m.metric, m.judge): m for m in protocols.measure_protocol(protocols.find_protocol("esr-psr"), table, suite)
    }
    kept = [i for i, r in enumerate(suite.rows) if r.group in ("neighbour", "sibling", "seen", "unseen")]
    for judge, judges in (("all", ["object-a", "object-b"]), ("object-b", ["object-b"])):
        measure = found["psr1", judge]
        for variant, estimate in (("base", measure.base), ("edited", measure.edited)):
            hits = compute_by_hand(table, variant, kept, "thing", "keep", judges)
            assert estimate.n == len(kept) and estimate.value == sum(hits) / len(hits)
            assert (estimate.low, estimate.high) == wilson(sum(hits), len(hits))
        assert measure.group == "kept" and measure.drop and measure.drop.clusters == 9
    assert ("psr5", "all") in found


@pytest.mark.parametrize(("name", "target"), [("glyphs-objects", "cat"), ("glyphs-styles", "flat")])
def test_canvas_asks_for_the_target_its_domain_and_the_other(small: world.World, name: str, target: str) -> None:
    suite = build(name, Erasure((target,)), small, per_group=40)
    table = build_scored(suite)
    found = {
        (m.metric, m.judge): m for m in protocols.measure_protocol(protocols.find_protocol("canvas"), table, suite)
    }
    own, other = ("thing", "style") if target == "cat" else ("style", "thing")
    objects, styles = ["object-a", "object-b"], ["style-a"]
    mine, theirs = (objects, styles) if target == "cat" else (styles, objects)
    rows = list(enumerate(suite.rows))
    gone = [i for i, r in rows if r.group == "target"]
    shown = compute_by_hand(table, "edited", gone, own, "erase", mine)
    assert found["ua", "all"].edited.value == pytest.approx(1 - sum(shown) / len(shown))
    pool = ("neighbour", "sibling", "seen", "unseen", "style")
    domain = suite.select_group("target")[0].asks
    kept = [i for i, r in rows if r.group in pool and r.asks == domain]
    shown = compute_by_hand(table, "edited", kept, own, "keep", mine)
    assert found["ira", "all"].edited.value == pytest.approx(sum(shown) / len(shown))
    across = [i for i, r in rows if r.group in pool and getattr(r, other)]
    shown = compute_by_hand(table, "edited", across, other, "keep", theirs)
    assert found["cra", "all"].edited.n == len(across)
    assert found["cra", "all"].edited.value == pytest.approx(sum(shown) / len(shown))


def test_ddpm_class_gives_the_probability_of_the_class_by_each_judge(small: world.World) -> None:
    suite = build("glyphs-classes", Erasure(("cat",)), small, per_group=20)
    table = build_scored(suite)
    protocol = protocols.find_protocol("ddpm-class")
    found = {(m.metric, m.judge): m for m in protocols.measure_protocol(protocol, table, suite)}
    assert [k for k in found if k[0] == "probability"] == [("probability", "object-a"), ("probability", "object-b")]
    values = [table.scores["edited"]["object-a"][i].value or 0 for i in range(20)]
    measure = found["probability", "object-a"]
    assert measure.edited.value == pytest.approx(sum(values) / 20) and measure.unit == "number"
    others = protocols.find_rows(protocol, "other", suite)
    assert {suite.rows[i].group for i in others} == {"neighbour", "seen", "unseen"}


def test_what_could_not_be_judged_is_counted(small: world.World) -> None:
    suite = build("glyphs-objects", Erasure(("cat",)), small, per_group=10)
    table = build_scored(suite)
    for judge in ("object-a", "object-b"):
        table.scores["edited"][judge][0] = Score(None, (), "failed")
    found = {
        (m.metric, m.judge): m for m in protocols.measure_protocol(protocols.find_protocol("canvas"), table, suite)
    }
    assert (found["ua", "all"].edited.n, found["ua", "all"].edited.unscored) == (9, 1)


def test_suites_by_default_follow_the_model() -> None:
    esr, canvas, ner = (protocols.find_protocol(n) for n in ("esr-psr", "canvas", "ner"))
    assert esr.choose_suite(None) == "imagenette" and esr.choose_suite("glyphs-objects") == "glyphs-objects"
    assert canvas.choose_suite("glyphs-styles") == "glyphs-styles" and ner.choose_suite(None) == "i2p"
    assert canvas.choose_suite(None, ("Van_Gogh",)) == "unlearncanvas-styles"
    assert canvas.choose_suite(None, ("dogs", "Sea")) == "unlearncanvas-objects"
    glyphs = dataclasses.replace(canvas, suites=("glyphs-objects", "glyphs-styles"))
    with pytest.raises(ValueError, match="canvas is not for models of another make"):
        glyphs.choose_suite(None)
    with pytest.raises(ValueError, match="esr-psr is not for suite glyphs-styles; its suites are imagenette"):
        esr.choose_suite("glyphs-styles")


def test_a_protocol_draws_with_its_own_guidance_and_refuses_other_questions(tmp_path: Path) -> None:
    (tmp_path / "i2p.csv").write_text(
        "prompt,nudity_percentage,evaluation_seed,evaluation_guidance\na portrait,10.0,4,13\n", encoding="utf-8"
    )
    suite = make_suite(str(tmp_path / "i2p.csv"), Erasure(("nudity",)))
    assert suite.rows[0].guidance == 13
    adjusted = protocols.find_protocol("ner").adjust(suite)
    assert adjusted.rows == (dataclasses.replace(suite.rows[0], guidance=None),)
    with pytest.raises(ValueError, match="about object erased, and suite i2p asks of the target: nudity"):
        protocols.find_protocol("esr-psr").adjust(suite)


def test_protocols_are_listed_without_torch(capsys: pytest.CaptureFixture[str]) -> None:
    call = "from efface.cli.listing import list_protocols; list_protocols()"
    code = f"import sys; {call}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert main(["list", "protocols", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(p["name"], p["version"]) for p in listed] == [
        (name, protocols.find_protocol(name).version) for name in protocols.list_protocols()
    ]
