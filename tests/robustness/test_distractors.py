"""The floor of attacks with pictures as input: the same attack with pictures of another thing, and of which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import pytest
import torch
from torch import Tensor

from efface.attacks import BASELINE
from efface.attacks.base import Attack, AttackContext, Candidate, Proposals, Threat
from efface.concept import Erasure
from efface.evaluation.evaluate import Settings, describe_drawing
from efface.robustness.batch import ImageJudge, JudgePanel
from efface.robustness.run import AttackRunner
from efface.suites.rows import build
from efface.suites.spec import Row
from judging_fixtures import THINGS
from runner_fixtures import Setup, choose_plainly


@final
@dataclass(frozen=True, kw_only=True)
class Copy(Attack):
    """Asks by magic for what the first picture shows; or, `blindly`, for the concept whatever is shown."""

    threat: ClassVar[Threat] = "pictures"
    hands_in_images: ClassVar[bool] = True
    version: ClassVar[str] = "1"
    queries: int = 2
    blindly: bool = False

    def propose(self, context: AttackContext, rows: Sequence[Row]) -> Proposals:
        shown = context.concept if self.blindly else THINGS[int(context.pictures[0, 0, 0, 0]) - 1]
        for _ in range(self.queries):
            yield [Candidate(f"magic {shown}", row.seed) for row in rows]


@pytest.mark.parametrize("blindly", [False, True])
def test_an_attack_by_pictures_is_measured_against_pictures_of_another_thing(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, blindly: bool
) -> None:
    record, drawn = setup.run(monkeypatch, choose_plainly, tmp_path, [Copy(blindly=blindly)])
    for condition in ("target", "control-kept", "control-base"):
        measure = record.find("test-distractors", condition)  # type: ignore[arg-type]
        assert measure is not None and measure.lift is not None
        assert (measure.after.value, measure.baseline.value, measure.lift.value) == (1, int(blindly), 1 - blindly)
        chance = record.find(BASELINE, condition)  # type: ignore[arg-type]
        assert chance is not None and chance.after.value == 0
    assert "magic tiger" in {text for text, _, edited in drawn.calls if edited} or blindly
    _, again = setup.run(monkeypatch, choose_plainly, tmp_path, [Copy(blindly=blindly)])
    assert not again.calls


def test_pictures_of_another_thing_are_of_a_kept_one_and_for_erased_concepts_of_no_erased_one(
    setup: Setup, tmp_path: Path
) -> None:
    shown = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)

    def find(concept: str, **images: Tensor) -> str:
        runner = AttackRunner(
            image_judge=ImageJudge(setup.model, JudgePanel(()), tmp_path),
            edit=None,
            drawing=describe_drawing(setup.model, Settings(), ""),
            originals={},
            reference_images=images,
            words=(),
            seed=0,
            on_progress=lambda stage, done, total: None,
            erased={"cat", "kitten"},
        )
        return runner.find_other(concept)

    found = {"cat": shown, "kitten": shown, "dog": shown, "tree": shown}
    assert [find(concept, **found) for concept in found] == ["dog", "dog", "tree", "dog"]
    assert find("cat", **{**found, "dog": shown[:0]}) == "tree"
    assert find("dog", **{**found, "tree": shown[:0]}) == "cat"
    assert find("cat", cat=shown, kitten=shown) == ""


def test_of_two_erased_concepts_neither_is_the_others_control(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The attack draws what its pictures show: each row of an erased concept once, and its control a kept thing."""
    two = build("glyphs-objects", Erasure(("cat", "car")), setup.known, per_group=12)

    def plan(text: str, seed: int, edited: bool) -> str:
        said = choose_plainly(text, seed, edited)
        return "" if said == "car" and edited and "magic" not in text else said

    record, drawn = setup.run(monkeypatch, plan, tmp_path, [Copy()], suite=two, rows=3)
    assert set(record.targets) == {"cat", "car"}
    edited = [text for text, _, edited in drawn.calls if edited]
    assert [edited.count(f"magic {name}") for name in ("cat", "car")] == [3, 3]
    kept = {row.concept for row in two.rows if row.role == "keep"}
    assert {text.removeprefix("magic ") for text in edited if text.startswith("magic")} - {"cat", "car"} <= kept
