"""What is said, shared out and counted before a training of many targets, or of a large model, begins."""

from __future__ import annotations

import pytest

import efface
from efface.api import progress
from efface.concept import Erasure
from efface.methods.eap import EAP
from efface.methods.esd import ESD
from efface.methods.states import share_paths
from efface.models.adapters.sd import StableDiffusion
from efface.planning.estimating import estimate

TARGETS = tuple(f"c{i}" for i in range(20))


@pytest.mark.parametrize(("paths", "targets", "each"), [(32, 1, 32), (32, 5, 7), (32, 20, 4), (160, 20, 8), (2, 20, 2)])
def test_trajectories_are_shared_out_among_the_targets(paths: int, targets: int, each: int) -> None:
    assert share_paths(paths, targets) == each


def test_twenty_targets_are_drawn_eighty_trajectories_and_it_is_said_beforehand(eps_model: StableDiffusion) -> None:
    """They were 640: 32 of each, of which a training of as many updates as for one target saw a twentieth."""
    method = ESD(steps=2, batch=2, draw_steps=2, source="frozen", lr=1e-3)
    told: list[tuple[int, int]] = []
    built = method.build_trainer(eps_model, Erasure(TARGETS))
    built.tell_drawing(lambda done, of: told.append((done, of)))
    plan = estimate(built)
    assert plan.drawn == 80
    assert "trajectories and pictures drawn first" in plan.format_table() and plan.format_table().count("80\n") == 1
    built.train()
    assert told[0] == (0, 80) and told[-1] == (80, 80)


def test_each_of_five_targets_has_the_candidates_that_one_has_and_it_is_said(eps_model: StableDiffusion) -> None:
    method = EAP(steps=2, batch=2, draw_steps=2, source="frozen", lr=1e-3)
    one = len(method.build_trainer(eps_model, Erasure(("cat",))).terms[1].search.words["cat"])  # type: ignore[attr-defined]
    built = method.build_trainer(eps_model, Erasure(("cat", "dog", "apple", "rose", "truck")))
    words = built.terms[1].search.words  # type: ignore[attr-defined]
    assert len(words) == 5 and {len(own) for own in words.values()} == {one - 4}  # the other targets are none of them
    assert f"candidate words: {one - 4} for cat, {one - 4} for dog" in estimate(built).format_table()
    assert one > 5


def test_a_long_drawing_tells_its_steps(eps_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pass of this network takes six seconds by the clock."""
    now, silent, longest = [0.0], [0.0], [0.0]
    network = type(eps_model)._call_network

    def slow(*args: object) -> object:
        now[0] += 6.0
        longest[0] = max(longest[0], now[0] - silent[0])
        return network(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(type(eps_model), "_call_network", slow)
    told: list[tuple[str, int, int]] = []

    def report(stage: str, done: int, of: int) -> None:
        silent[0] = now[0]
        told.append((stage, done, of))

    settings = {"steps": 2, "batch": 1, "draw_steps": 10, "lr": 1e-3}
    efface.erase(eps_model, "cat", "esd", progress=report, **settings)
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages[0] == "taking the fingerprint of the weights" and progress.STEPS in stages
    assert longest[0] <= 3 * 6.0  # the teacher's pass, the student's, and one before them
    assert eps_model.on_step is None
