"""What the stages of MACE and STEREO train on, without a training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.functional.denoising import measure_denoising_errors
from efface.methods import mace, stereo
from efface.methods.closed_form import find_text_projections
from efface.methods.mace import MACE
from efface.methods.stereo import STEREO, Bench
from efface.training.balance.sum import Sum
from efface.training.objectives.attention import Attention, Focus
from efface.training.objectives.composition import Composition
from efface.training.states.conditions import Conditions
from efface.training.states.pictures import Pictures
from efface.training.states.trajectories import Student
from efface.training.updates.dense import Dense
from efface.training.updates.lowrank import LowRank

BOTH = Erasure(("cat", "dog"))
SHORT = STEREO(steps=5, batch=2, rounds=2, pictures=5, paths=4, draw_steps=3, seed=7, weights="xattn", attack_steps=3)
SMALL = MACE(steps=4, batch=3, pictures=2, draw_steps=3, lr=0.25, rank=2, lamb=2.0, contexts=("{}", "a {} car"), seed=7)


class Told:
    """Stands for a trainer: notes what it is built of, and tells the progress of two steps."""

    built: dict[str, Any]
    checkpoint: object

    def __init__(self, model: Any, erasure: Erasure, **parts: Any) -> None:
        Told.built = {"model": model, "erasure": erasure, **parts}

    def train(self, on_progress: Callable[..., None], checkpoint: object = None) -> Edit:
        Told.checkpoint = checkpoint
        of = Told.built["config"].steps
        on_progress(1, of, loss=0.5)
        on_progress(of, of)
        return Edit({"a": torch.ones(1)}, {})


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> type[Told]:
    monkeypatch.setattr(mace, "Trainer", Told)
    monkeypatch.setattr(stereo, "Trainer", Told)
    return Told


def build_bench(model: Any, how: STEREO = SHORT, progress: Any = None, checkpoint: Any = None) -> Bench:
    return Bench(how, model, BOTH, how.build_record(model, BOTH), progress, checkpoint)


@pytest.mark.parametrize("stage", ["dog #1", "once"])
@pytest.mark.parametrize("source", ["student", "frozen"])
def test_an_erasing_of_stereo_has_the_settings_of_its_stage(eps_model: Any, told: Any, stage: str, source: Any) -> None:
    """Contexts of the targets in the last alone; steps are counted over two rounds of both targets, and the last."""
    steps: list[tuple[int, int]] = []
    how = replace(SHORT, source=source, templates=("{}", "a {}"), space="x0")
    bench = build_bench(eps_model, how, lambda step, of, **_: steps.append((step, of)), Path("there"))
    bench.stages = 3
    targets = BOTH if stage == "once" else Erasure(("dog",))
    negatives = [bench.encode_prompts(BOTH.targets.index(target)) for target in targets.targets]
    values = bench.erase(stage, targets, negatives, 0.25, 1.5)
    assert values.keys() == {"a"} and told.checkpoint == Path("there")
    assert steps == [(16, 25), (20, 25)]
    built = told.built
    assert built["erasure"] is targets and built["model"] is eps_model and built["name"] == "STEREO"
    assert built["arguments"]["stage"] == stage and built["arguments"]["micro_batch"] == 0
    assert built["arguments"]["request"] == bench.record["request"]
    config = built["config"]
    assert (config.steps, config.batch, config.draw_steps, config.seed) == (5, 2, 3, 7)
    assert config.templates == ("{}", "a {}")
    (term,) = built["terms"]
    assert type(term) is Composition and (term.pull, term.push, term.space) == (1.0, 1.5, "x0")
    assert term.negatives is negatives
    assert list(term.anchors) == [[c.format(t) for c in how.contexts] for t in BOTH.targets if stage == "once"]
    assert (type(built["update"]), built["update"].lr, built["update"].selection) == (Dense, 0.25, "xattn")
    assert built["balance"] == Sum()
    if source == "student":
        assert type(term.source) is Student and (term.source.steps, term.source.guidance) == (3, 3.0)
    else:
        assert type(term.source) is Conditions and list(term.source.conds) == [p for each in negatives for p in each]
        assert (term.source.steps, term.source.guidance, term.source.paths) == (3, 3.0, 4)


def test_stereo_without_contexts_has_no_anchors_and_without_a_listener_tells_nothing(eps_model: Any, told: Any) -> None:
    bench = build_bench(eps_model, replace(SHORT, contexts=()))
    bench.erase("once", BOTH, [bench.encode_prompts(i) for i in range(2)], 0.25, 1.5)
    (term,) = told.built["terms"]
    assert not term.anchors and told.checkpoint is None


def test_stereos_pictures_are_of_all_templates_in_turn_and_have_seeds_of_their_own(
    eps_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five pictures, two at once: for seed 7 from 2**43 + 7 * 1,000,003 on, as in any later version."""
    eps_model.draw_batch, drawn, seen = 2, [], []

    def sample(cond: Any, uncond: Any, seeds: list[int], **how: Any) -> Any:
        drawn.append(list(seeds))
        seen.extend(cond.tokens)
        assert how == {"steps": 3, "guidance": 7.5, "sampler": "ddim"}
        assert torch.equal(uncond.tokens, eps_model.encode([""]).tokens)
        return SimpleNamespace(x=torch.tensor(seeds).view(-1, 1, 1, 1) - 2**43)

    monkeypatch.setattr(eps_model, "sample", sample)
    found = build_bench(eps_model, replace(SHORT, templates=("{}", "a {}")))._draw_pictures(1)
    first = 2**43 + 7 * 1_000_003
    assert drawn == [[first, first + 1], [first + 2, first + 3], [first + 4]]
    assert found.flatten().tolist() == [first - 2**43 + k for k in range(5)]
    wanted = eps_model.encode(["dog", "a dog"]).tokens
    assert all(torch.equal(tokens, wanted[k % 2]) for k, tokens in enumerate(seen))


@pytest.mark.parametrize("tokens", [1, 2])
def test_stereos_attack_is_adamw_on_the_denoising_error_of_some_pictures(eps_model: Any, tokens: int) -> None:
    """From the first token of the start word, with a batch of its own in each step."""
    how = replace(SHORT, attack_tokens=tokens, attack_lr=0.1, attack_decay=0.3, start_word="car")
    pictures = torch.randn(5, *eps_model.latent_shape, generator=torch.Generator().manual_seed(0))
    found = build_bench(eps_model, how)._attack(pictures, 11)["word"]
    table = eps_model.get_embedding_table().detach()
    word = table[eps_model.tokenize(["car"])[0, 1]].expand(1, tokens, -1).clone().requires_grad_()
    adam = torch.optim.AdamW([word], lr=0.1, weight_decay=0.3)
    for step in range(3):
        rng = torch.Generator().manual_seed(11 * 1_000_003 + step)
        x0 = pictures[torch.randint(5, (2,), generator=rng)]
        cond = eps_model.encode_with_grad([""], word).expand(2)
        errors = measure_denoising_errors(
            lambda x, t, cond=cond: eps_model.predict(x, t, cond)[0],
            x0,
            eps_model.find_noise_level,
            len(eps_model.levels),
            "eps",
            rng,
        )
        (word.grad,) = torch.autograd.grad(errors.mean(), [word])
        adam.step()
    assert found.shape == (tokens, 16)
    assert torch.allclose(found, word[0], atol=1e-3) and not torch.allclose(found, table[0].expand_as(found))


def test_stereos_search_goes_through_its_rounds_with_what_each_found(
    eps_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each round erases, from the weights of the round before, and attacks with the new ones, by a seed of its own."""
    erased: list[Any] = []
    attacked: list[Any] = []
    name = next(n for n in eps_model.weights if n.endswith("attn2.to_k.weight"))
    base = eps_model.weights[name].detach().clone()

    def erase(self: Bench, stage: str, erasure: Erasure, negatives: Any, lr: float, push: float) -> Any:
        erased.append((stage, self.stages, erasure.targets, [list(n) for n in negatives], lr, push))
        erased[-1] += (float((self.model.weights[name].detach() - base).mean()),)
        return {name: base.double() + len(erased)}

    def attack(self: Bench, pictures: Any, seed: int) -> Any:
        attacked.append((seed, len(pictures), round(float((self.model.weights[name].detach() - base).mean()), 3)))
        return {"word": torch.full((1, 16), 0.1 * len(attacked))}

    monkeypatch.setattr(Bench, "erase", erase)
    monkeypatch.setattr(Bench, "_attack", attack)
    monkeypatch.setattr(Bench, "_draw_pictures", lambda *_: torch.zeros(5, 1))
    bench = build_bench(eps_model, replace(SHORT, search_lr=0.125, search_eta=0.5))
    found = bench.search(1)
    assert {key: float(word.mean()) for key, word in found.items()} == pytest.approx({"dog #1": 0.1, "dog #2": 0.2})
    assert erased == [
        ("dog #1", 0, ("dog",), [["dog"]], 0.125, 0.5, 0.0),
        ("dog #2", 1, ("dog",), [["dog #1"]], 0.125, 0.5, pytest.approx(1.0, abs=1e-4)),
    ]
    assert bench.stages == 2
    first = (7 * 1009 + 1) * 1009  # of seed 7 and the second target
    assert attacked == [(first, 5, 1.0), (first + 1, 5, 2.0)]
    assert torch.equal(eps_model.weights[name], base)
    assert build_bench(eps_model, replace(SHORT, rounds=0)).search(0) == {} and len(erased) == 2


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
