"""What the stages of MACE train on, fuse and leave on disk, without a training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.methods import mace
from efface.methods.closed_form import find_text_projections
from efface.methods.mace import MACE
from efface.training.balance.sum import Sum
from efface.training.objectives.attention import Attention, Focus
from efface.training.states.pictures import Pictures
from efface.training.updates.lowrank import LowRank
from stage_fixtures import BOTH, Told

SMALL = MACE(steps=4, batch=3, pictures=2, draw_steps=3, lr=0.25, rank=2, lamb=2.0, contexts=("{}", "a {} car"), seed=7)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> type[Told]:
    monkeypatch.setattr(mace, "Trainer", Told)
    return Told


def test_a_training_of_mace_has_the_methods_settings(eps_model: Any, told: Any, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []

    def note(step: int, of: int, **_: Any) -> None:
        steps.append((step, of))

    for focal, ends, segment in ((True, True, None), (False, False, lambda pictures, thing: pictures)):
        method = replace(SMALL, focal=focal, end_tokens=ends, threshold=0.25, guidance=2.0)
        method._train_target(eps_model, BOTH, 1, segment, note, None)
        built = told.built
        assert built["erasure"] == Erasure(("dog",)) and built["name"] == "MACE"
        assert built["arguments"]["templates"] == SMALL.contexts and built["arguments"]["micro_batch"] == 0
        assert built["arguments"]["request"] == {"targets": BOTH.targets, "anchor": "", "keep": ()}
        config = built["config"]
        assert (config.steps, config.batch, config.draw_steps, config.seed) == (4, 3, 3, 7)
        assert config.templates == SMALL.contexts
        (term,) = built["terms"]
        assert type(term) is Attention and (term.threshold, term.ends, term.segment) == (0.25, ends, segment)
        assert term.focus == (Focus() if focal else None)
        source = term.source
        assert type(source) is Pictures and (source.drawn, source.steps, source.guidance) == (2, 3, 2.0)
        update = built["update"]
        assert type(update) is LowRank and (update.selection, update.lr, update.rank) == ("xattn-strict", 0.25, 2)
        assert built["balance"] == Sum()
    assert steps == [(5, 8), (8, 8)] * 2
    SMALL._train_target(eps_model, BOTH, 0, None, None, None)  # nobody listens


def test_what_mace_trained_for_a_target_is_read_again_by_the_same_run_alone(
    eps_model: Any, told: Any, tmp_path: Path
) -> None:
    """Its notes may differ, since they are of a training that may not have been made."""
    file = tmp_path / "checkpoint"
    for i in (0, 1):
        told.trained = 0
        SMALL._train_target(eps_model, BOTH, i, None, None, file)
        assert told.trained == 1 and told.checkpoint == file
        told.trained = 7  # as long as another process had trained
        edit = SMALL._train_target(eps_model, BOTH, i, None, None, file)
        assert torch.equal(edit.values["a"], torch.ones(1)) and told.trained == 7
    assert {each.name for each in tmp_path.iterdir()} == {"checkpoint.0.done", "checkpoint.1.done"}
    with pytest.raises(ValueError, match=r"checkpoint\.1\.done belongs to another run"):
        replace(SMALL, lr=0.5)._train_target(eps_model, BOTH, 1, None, None, file)


def test_what_waits_beside_a_checkpoint_goes_when_mace_is_done(
    eps_model: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nothing = {
        f"{name}:{side}": torch.zeros((len(w), 1) if side == "up" else (1, w.shape[1]))
        for name, w in find_text_projections(eps_model).items()
        for side in ("up", "down")
    }

    def train(self: MACE, model: Any, erasure: Erasure, i: int, *rest: Any) -> Edit:
        if i == 0:  # of the second it is gone already
            (tmp_path / "checkpoint.0.done").touch()
        return Edit(nothing, {})

    monkeypatch.setattr(MACE, "_train_target", train)
    (tmp_path / "checkpoint.2.done").touch()  # of another run, with three targets
    edit = replace(SMALL, contexts=("{}",)).train(eps_model, BOTH, None, None, tmp_path / "checkpoint")
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint.2.done"]
    assert edit.meta["notes"]["anchor"] == "object"


def test_mace_fuses_what_was_trained_for_each_target_with_the_refinement(
    eps_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both closed forms by stacked least squares."""
    rng = torch.Generator().manual_seed(3)
    projections = find_text_projections(eps_model)
    trained = [
        {
            f"{name}:{side}": 0.3 * torch.randn((w.shape[0], 2) if side == "up" else (2, w.shape[1]), generator=rng)
            for name, w in projections.items()
            for side in ("up", "down")
        }
        for _ in BOTH.targets
    ]
    seen: list[Any] = []

    def train(self: MACE, model: Any, erasure: Erasure, i: int, *rest: Any) -> Edit:
        seen.append((i, {name: model.weights[name].detach().double().numpy() for name in projections}))
        return Edit(trained[i], {})

    monkeypatch.setattr(MACE, "_train_target", train)
    erasure = Erasure(BOTH.targets, anchor="red car", keep=("lion",))
    method = replace(SMALL, preserve_words=6, preserve_scale=0.5)
    edit = method.train(eps_model, erasure, None, None, None)
    assert [i for i, _ in seen] == [0, 1]
    preserved = edit.meta["notes"]["preserved"]
    assert preserved[0] == "lion" and not {"cat", "dog"} & {*preserved} and len(preserved) > 1
    assert edit.meta["notes"]["anchor"] == "red car"

    def read(words: Any) -> np.ndarray:
        prompts = [context.format(word) for word in words for context in SMALL.contexts]
        return eps_model.encode(prompts).tokens.flatten(0, 1).double().numpy()

    kept = read(preserved)
    # A target stands at 1 of "cat" and 2 of "a cat car"; red car at 1, 2 and 2, 3. Of eight tokens the others align.
    goal = read(["red car"]).reshape(2, 8, 16)
    own = [read([target]).reshape(2, 8, 16) for target in BOTH.targets]
    old = [part for short, long in own for part in (short[:1], short[2:7], long[:2], long[3:7])]
    new = [goal[0][:1], goal[0][3:8], goal[1][:2], goal[1][4:8]] * 2
    for name in projections:
        plain, refined = projections[name].detach().double().numpy(), seen[0][1][name]
        rows = [*old, np.sqrt(0.5) * kept, np.sqrt(2.0) * np.eye(16)]
        answers = [*(each @ plain.T for each in new), np.sqrt(0.5) * kept @ plain.T, np.sqrt(2.0) * plain.T]
        wanted = np.linalg.lstsq(np.concatenate(rows), np.concatenate(answers), rcond=None)[0].T
        assert np.allclose(refined, wanted, atol=1e-4) and np.array_equal(refined, seen[1][1][name])
        rows = [np.sqrt(0.5) * kept, np.sqrt(2.0) * np.eye(16)]
        answers = [np.sqrt(0.5) * kept @ refined.T, np.sqrt(2.0) * refined.T]
        for target, change in zip(BOTH.targets, trained, strict=True):
            moved = refined + (change[f"{name}:up"].double() @ change[f"{name}:down"].double()).numpy()
            rows.append(read([target]))
            answers.append(rows[-1] @ moved.T)
        wanted = np.linalg.lstsq(np.concatenate(rows), np.concatenate(answers), rcond=None)[0].T
        assert np.allclose(edit.values[name].numpy(), wanted, atol=1e-4)
        assert edit.values[name].dtype == projections[name].dtype
        assert not np.allclose(refined, projections[name].detach().numpy(), atol=1e-4)


def test_mace_reads_every_token_of_every_prompt_of_what_it_preserves(eps_model: Any) -> None:
    """Of no words none, not even the start token."""
    assert SMALL._encode_all(eps_model, []).shape == (0, 16)
    found = SMALL._encode_all(eps_model, ["lion", "rose"])
    wanted = eps_model.encode(["lion", "a lion car", "rose", "a rose car"]).tokens.flatten(0, 1).double()
    assert found.dtype == torch.double and torch.equal(found, wanted)


def test_mace_reads_the_tokens_of_a_prompt_that_is_cut_off_up_to_its_end_token(eps_model: Any) -> None:
    whole, cut = mace._read(eps_model, "a cat"), mace._read(eps_model, "a cat a a a a a a a a")
    assert len(whole) == 4 and len(cut) == 8
    assert cut[:3] == whole[:3] and cut[-1] == whole[-1]
