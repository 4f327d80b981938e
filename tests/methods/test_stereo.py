"""STEREO: its target by brute force, what the attack finds, what accumulates over rounds, and what waits on disk."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch

from efface.concept import Erasure
from efface.functional.denoising import measure_denoising_errors
from efface.methods.stereo import STEREO, Bench
from efface.models.adapters.sd import StableDiffusion
from efface.models.base import Model
from efface.training.balance.sum import Sum
from efface.training.config import TrainConfig
from efface.training.interfaces import Context, MemoryFootprint, Step
from efface.training.objectives.composition import Composition
from efface.training.states.conditions import Conditions
from efface.training.trainer import Trainer
from efface.training.updates.dense import Dense
from tiny_ddpm import tiny_ddpm

QUICK = STEREO(
    weights="xattn",
    steps=2,
    search_lr=1e-3,
    lr=1e-2,
    batch=2,
    rounds=2,
    attack_steps=3,
    attack_lr=0.1,
    contexts=("a {}", "red {}"),
    pictures=3,
    source="frozen",
    paths=2,
    draw_steps=3,
)


def build_bench(model: StableDiffusion, how: STEREO = QUICK, erasure: Erasure | None = None, **more) -> Bench:
    erasure = erasure or Erasure(("cat",))
    return Bench(how, model, erasure, how.build_record(model, erasure), more.get("progress"), more.get("checkpoint"))


def build_trainer(
    model: StableDiffusion, pull: float, push: float, anchors: bool = True
) -> tuple[Trainer, Composition]:
    word = torch.randn(1, 16, generator=torch.Generator().manual_seed(3)) * 0.1
    bench = build_bench(model, erasure=Erasure(("cat", "dog")))
    negatives = [
        bench.encode_prompts(i) | {f"{name} #1": bench.encode_word(word)} for i, name in enumerate(("cat", "dog"))
    ]
    conds = {name: cond for each in negatives for name, cond in each.items()}
    around = [["a cat", "red cat"], ["a dog", "red dog"]] if anchors else ()
    term = Composition(Conditions(conds, 3, 3.0, 2), negatives, around, pull, push, "eps")
    config = TrainConfig(steps=QUICK.steps, batch=6, draw_steps=QUICK.draw_steps)
    trainer = Trainer(
        model,
        Erasure(("cat", "dog")),
        name="test",
        arguments=asdict(QUICK),
        config=config,
        terms=(term,),
        update=Dense("xattn", 1e-3),
        balance=Sum(),
    )
    return trainer, term


@pytest.mark.parametrize("anchors", [True, False])
def test_the_target_by_brute_force(eps_model, anchors):
    trainer, term = build_trainer(eps_model, 0.7, 1.9, anchors)
    with torch.no_grad():
        for master in trainer.update.masters:
            master.add_(
                0.3 * master.abs().mean() * torch.randn(master.shape, generator=torch.Generator().manual_seed(1))
            )
    step = replace(trainer.make_auxiliary_step(0, 0), targets=[0, 1, 0, 1, 0, 1])
    queries = term.build_queries(trainer.context, step)
    states = queries["student"].states

    def say(cond, i):
        return eps_model.predict(states.x[i : i + 1], states.t[i : i + 1], cond)[0]

    total = 0.0
    with torch.no_grad():
        for i in range(6):
            own = term.negatives[i % 2]
            eps_0 = say(trainer.context.uncond, i)
            away = [say(cond, i) - eps_0 for cond in own.values()]
            target = eps_0 - 1.9 * sum(away) / 2
            if anchors:
                target = target + 0.7 * (say(queries["pull"].cond[[i]], i) - eps_0)
                spelled = eps_model.encode([["a cat", "red cat"], ["a dog", "red dog"]][i % 2]).flatten()
                assert any(torch.equal(queries["pull"].cond.flatten()[i], one) for one in spelled)
            drawn = queries["student"].cond.flatten()[i]
            assert any(torch.equal(drawn, cond.flatten()[0]) for cond in own.values())
            with trainer.update.swapped_in():
                total += float((say(queries["student"].cond[[i]], i) - target).square().mean()) / 6
        with trainer.compute_losses(replace(trainer.make_auxiliary_step(0, 0), targets=[0, 1, 0, 1, 0, 1])) as losses:
            assert losses["erase"].item() == pytest.approx(total, rel=1e-4)
    assert ("pull" in queries) == anchors


def test_without_a_push_a_round_asks_for_the_unconditional_prediction(eps_model):
    trainer, term = build_trainer(eps_model, 1.0, 0.0, anchors=False)
    queries = term.build_queries(trainer.context, trainer.make_auxiliary_step(0, 0))
    assert set(queries) == {"student", "eps_0"}
    with torch.no_grad(), trainer.compute_losses(trainer.make_auxiliary_step(0, 0)) as losses:
        said = eps_model.predict(
            queries["student"].states.x, queries["student"].states.t, queries["student"].cond, trainer.context.uncond
        )
        assert losses["erase"].item() == pytest.approx((said[0] - said[1]).square().mean().item(), rel=1e-4)


def test_recorded_states_and_what_is_known_of_them(eps_model):
    trainer, term = build_trainer(eps_model, 1.0, 3.0)
    queries = term.build_queries(trainer.context, trainer.make_auxiliary_step(0, 0))
    states, cond = queries["student"].states, queries["student"].cond
    with torch.no_grad():
        eps_c, eps_0 = eps_model.predict(states.x, states.t, cond, trainer.context.uncond)
    assert torch.allclose(states.known["eps_c"], eps_c, atol=1e-4)
    assert torch.allclose(states.known["eps_0"], eps_0, atol=1e-4)
    assert set(states.t.tolist()) <= set(eps_model.list_timesteps(3, "ddim").tolist())


def test_trajectories_under_conditions_have_seeds_of_their_own_and_are_drawn_a_few_at_once(eps_model, monkeypatch):
    monkeypatch.setattr(eps_model, "draw_batch", 2)
    conds = {name: eps_model.encode([name]) for name in ("cat", "dog")}
    source, update = Conditions(conds, steps=4, guidance=3.0, paths=3), Dense("xattn", 1e-3)
    config, uncond = TrainConfig(steps=1, batch=2, draw_steps=4, seed=5), eps_model.encode([""])
    context = Context(eps_model, Erasure(("cat",)), config, update, uncond)
    drawn: list[list[int]] = []
    sample = eps_model.sample

    def recording(cond, uncond, seeds, **how):
        drawn.append(list(seeds))
        return sample(cond, uncond, seeds, **how)

    monkeypatch.setattr(eps_model, "sample", recording)
    step = Step(0, update, torch.Generator(), [0, 0], [0, 0], noise=[4, 2], points=[1, 3])
    states = source.sample_states(context, step, ["dog", "cat"], conds["dog"])
    first = 2**42 + 5 * 1_000_003
    assert drawn == [[first, first + 1], [first + 2], [first + 3, first + 4], [first + 5]]
    for row, (name, seed, point) in enumerate((("dog", first + 4, 1), ("cat", first + 2, 3))):
        alone = sample(conds[name], uncond, [seed], sampler="ddim", steps=4, guidance=3.0, record=True)
        assert torch.allclose(states.x[row], alone.states[point, 0], atol=1e-5) and states.t[row] == alone.t[point]
    each = 3 * 4 * (4 * 8 * 8) * 4  # a state and two predictions at four steps, in fp32
    assert source.estimate_footprint(context) == MemoryFootprint(2, 2 * each, image_bytes=6 * each, drawn=6)
    few = Conditions(conds, steps=4, guidance=3.0, paths=1).estimate_footprint(context)
    assert few == MemoryFootprint(1, each, image_bytes=2 * each, drawn=2)


def test_the_attack_lowers_the_error_of_the_erased_model(eps_model):
    how = replace(QUICK, attack_steps=60, attack_lr=0.3)
    bench = build_bench(eps_model, how)
    pictures = bench._draw_pictures(0)
    assert pictures.shape == (3, 4, 8, 8)
    rng = torch.Generator().manual_seed(5)
    moved = {
        n: w.detach() + 0.5 * w.std(correction=0) * torch.randn(w.shape, generator=rng)
        for n, w in eps_model.weights.items()
        if "attn2" in n
    }

    def error(word: torch.Tensor) -> float:
        rng = torch.Generator().manual_seed(9)
        x0, cond = pictures.repeat(30, 1, 1, 1), bench.encode_word(word).expand(90)
        with torch.no_grad():
            say = lambda x, t: eps_model.predict(x, t, cond)[0]  # noqa: E731
            return float(
                measure_denoising_errors(say, x0, eps_model.find_noise_level, len(eps_model.levels), "eps", rng).mean()
            )

    with eps_model.swap_in(moved):
        word = bench._attack(pictures, 0)["word"]
        again = bench._attack(pictures, 0)["word"]
        first = eps_model.get_embedding_table().detach()[eps_model.tokenize(["object"])[0, 1]][None]
        assert error(word) < error(first)
    assert torch.equal(word, again)
    assert word.shape == (1, 16)


def test_rounds_build_on_one_another_and_the_last_erasing_starts_from_the_base(eps_model, monkeypatch):
    seen: list[tuple[str, bool, set[str]]] = []
    base = eps_model.weights
    name = next(n for n in base if "attn2.to_k" in n)
    erased = Bench.erase

    def watched(self, stage, erasure, negatives, lr, push):
        seen.append((stage, self.model.weights[name] is base[name], {key for each in negatives for key in each}))
        return erased(self, stage, erasure, negatives, lr, push)

    monkeypatch.setattr(Bench, "erase", watched)
    told: list[tuple[int, int]] = []
    edit = QUICK.fit(eps_model, Erasure(("cat", "dog")), progress=lambda i, n, **_: told.append((i, n)))
    assert seen == [
        ("cat #1", True, {"cat"}),
        ("cat #2", False, {"cat #1"}),
        ("dog #1", True, {"dog"}),
        ("dog #2", False, {"dog #1"}),
        ("once", True, {"cat", "cat #1", "cat #2", "dog", "dog #1", "dog #2"}),
    ]
    assert told == [(i, 10) for i in range(1, 11)]
    assert set(edit.meta["notes"]["found"]) == {"cat #1", "cat #2", "dog #1", "dog #2"}
    assert edit.meta["arguments"] == json.loads(json.dumps(asdict(QUICK)))


def test_finished_stages_wait_on_disk_for_the_same_run_alone(eps_model, tmp_path, monkeypatch):
    whole = QUICK.fit(eps_model, Erasure(("cat",)))
    file = tmp_path / "checkpoint"
    attack = Bench._attack
    calls: list[int] = []

    def killed(self, pictures, seed):
        calls.append(seed)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return attack(self, pictures, seed)

    monkeypatch.setattr(Bench, "_attack", killed)
    with pytest.raises(KeyboardInterrupt):
        QUICK.fit(eps_model, Erasure(("cat",)), checkpoint=file)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"checkpoint.0.0.erased", "checkpoint.0.0.found", "checkpoint.0.1.erased"}
    with pytest.raises(ValueError, match=r"0\.0\.erased belongs to another run \(differs in arguments\)"):
        replace(QUICK, seed=1).fit(eps_model, Erasure(("cat",)), checkpoint=file)
    resumed = QUICK.fit(eps_model, Erasure(("cat",)), checkpoint=file)
    assert len(calls) == 3
    assert not list(tmp_path.iterdir())
    assert all(torch.equal(value, resumed.values[key]) for key, value in whole.values.items())
    assert whole.meta == resumed.meta


def test_it_erases_what_its_own_attack_found(eps_model):
    """After the last erasing the model says less of the target under the found word than the base does."""
    how = replace(QUICK, weights="full", steps=40, lr=1e-2, rounds=1, attack_steps=20)
    erasure = Erasure(("cat",))
    bench = build_bench(eps_model, how)
    word = bench.search(0)["cat #1"]
    edit = how.fit(eps_model, erasure)
    source = Conditions({"cat #1": bench.encode_word(word)}, 3, 3.0, 4)
    trainer, _ = build_trainer(eps_model, 1.0, 3.0)
    step = replace(trainer.make_auxiliary_step(0, 0), targets=[0] * 6)
    states = source.sample_states(trainer.context, step, ["cat #1"] * 6, bench.encode_word(word))

    def shown() -> float:
        with torch.no_grad():
            eps_c, eps_0 = Model.predict(eps_model, states.x, states.t, bench.encode_word(word), trainer.context.uncond)
        direction = states.known["eps_c"] - states.known["eps_0"]
        return float(((eps_c - eps_0) * direction).sum() / direction.square().sum())

    assert shown() == pytest.approx(1, abs=1e-3)
    with edit.apply(eps_model):
        assert shown() < 0.5


def test_bad_settings(eps_model):
    for bad, message in (
        ({"rounds": -1}, "rounds must be at least 0"),
        ({"attack_steps": 0}, "attack_steps must be positive"),
        ({"source": "both"}, "no source 'both'"),
        ({"contexts": ("a cat",)}, "a context holds the concept"),
        ({"templates": ()}, "a template holds the concept"),
        ({"weights": "text_encoder"}, "reads by the text encoder"),
        ({"attack_tokens": 7}, "an attack of 7 tokens does not fit; tiny reads 6"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(QUICK, **bad).fit(eps_model, Erasure(("cat",)))
    with pytest.raises(ValueError, match="does not work on tiny"):
        QUICK.fit(tiny_ddpm(), Erasure(("cat",)))
    assert replace(QUICK, rounds=0).fit(eps_model, Erasure(("cat",))).meta["notes"] == {"found": {}}


@pytest.mark.filterwarnings("ignore:.* prompts? exceeds? 8 tokens")
def test_it_draws_no_more_at_once_than_it_is_told(eps_model):
    """Pictures for the attack, and stored trajectories, which then lie in the host's memory."""
    drawn, plain = [], eps_model.sample

    def sample(cond, uncond, seeds, **more):
        drawn.append(len(seeds))
        return plain(cond, uncond, seeds, **more)

    eps_model.sample, eps_model.draw_batch = sample, 2
    short = {"steps": 1, "rounds": 1, "attack_steps": 1, "pictures": 5, "paths": 3, "draw_steps": 2}
    STEREO(source="frozen", start_word="car", **short).fit(eps_model, Erasure(("cat",)))
    assert max(drawn) == 2 and sum(drawn) >= 5 + 3
