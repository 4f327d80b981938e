"""What the stages of STEREO train on and leave on disk, without a training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from efface.concept import Erasure
from efface.functional.denoising import measure_denoising_errors
from efface.methods import stereo
from efface.methods.stereo import STEREO, Bench
from efface.training.balance.sum import Sum
from efface.training.objectives.composition import Composition
from efface.training.states.conditions import Conditions
from efface.training.states.trajectories import Student
from efface.training.updates.dense import Dense
from stage_fixtures import BOTH, Told

SHORT = STEREO(steps=5, batch=2, rounds=2, pictures=5, paths=4, draw_steps=3, seed=7, weights="xattn", attack_steps=3)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> type[Told]:
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


def test_a_stage_of_stereo_is_made_once_and_waits_until_all_are_done(eps_model: Any, tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> dict[str, torch.Tensor]:
        made.append(1)
        return {"word": torch.full((1, 2), float(len(made)))}

    for _ in range(2):
        bench = build_bench(eps_model, checkpoint=tmp_path / "checkpoint")
        assert bench._run_stage("0.1.found", make)["word"].tolist() == [[1.0, 1.0]]
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint.0.1.found"]
    other = build_bench(eps_model, replace(SHORT, seed=8), checkpoint=tmp_path / "checkpoint")
    with pytest.raises(ValueError, match=r"0\.1\.found belongs to another run"):
        other._run_stage("0.1.found", make)
    (tmp_path / "checkpoint.0.0.found").write_bytes((tmp_path / "checkpoint.0.1.found").read_bytes())
    with pytest.raises(ValueError, match=r"0\.0\.found belongs to another run"):
        build_bench(eps_model, checkpoint=tmp_path / "checkpoint")._run_stage("0.0.found", make)
    bench.clear()
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint.0.0.found"]
    bench.clear()
    assert build_bench(eps_model)._run_stage("0.1.found", make)["word"].tolist() == [[2.0, 2.0]]


def test_stereo_erases_all_that_was_found_from_the_base(eps_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each target's prompts, and the tokens of its rounds; the words next to them are told."""
    table, seen = eps_model.get_embedding_table().detach(), []
    ids = {target: eps_model.tokenize([target])[0, 1] for target in BOTH.targets}

    def search(self: Bench, i: int) -> dict[str, torch.Tensor]:
        name = self.erasure.targets[i]
        return {f"{name} #1": table[ids[name]][None] + 1e-4}

    def erase(self: Bench, stage: str, erasure: Erasure, negatives: Any, lr: float, push: float) -> Any:
        seen.append((stage, erasure, [list(each) for each in negatives], lr, push))
        assert torch.equal(negatives[0]["cat"].tokens, eps_model.encode(["cat"]).tokens)
        word = eps_model.encode_with_grad([""], (table[ids["dog"]][None] + 1e-4)[None])
        assert torch.equal(negatives[1]["dog #1"].tokens, word.tokens)
        return {"a": torch.ones(1)}

    monkeypatch.setattr(Bench, "search", search)
    monkeypatch.setattr(Bench, "erase", erase)
    monkeypatch.setattr(Bench, "clear", lambda self: seen.append("cleared"))
    edit = replace(SHORT, lr=0.125, push=2.5).train(eps_model, BOTH, None, None, None)
    assert seen == [("once", BOTH, [["cat", "cat #1"], ["dog", "dog #1"]], 0.125, 2.5), "cleared"]
    assert edit.values == {"a": torch.ones(1)}
    assert {key: word.strip() for key, word in edit.meta["notes"]["found"].items()} == {
        "cat #1": "cat",
        "dog #1": "dog",
    }
