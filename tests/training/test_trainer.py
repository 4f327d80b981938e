"""The training loop: gradients as those of two models, what is asked, checkpoints, and divergence."""

from __future__ import annotations

import copy
from dataclasses import asdict
from functools import partial

import pytest
import torch

from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.functional.losses import negative_guidance
from efface.functional.schedules import NoiseLevel
from efface.methods.eap import EAP
from efface.methods.erasediff import EraseDiff
from efface.methods.esd import ESD
from efface.methods.states import build_trajectories
from efface.planning.estimating import estimate
from efface.planning.probe_steps import list_tensors
from efface.planning.tracker import AllocationTracker, count_bytes
from efface.training.diverged import Diverged
from efface.training.interfaces import Query, States, Step
from efface.training.objectives.anchor import Anchor
from efface.training.optim import Adam32bit
from efface.training.preservation.prompts import FixedPrompts
from efface.training.trainer import Trainer
from tiny_sdxl import tiny_sdxl
from trainer_fixtures import QUICK, build_trainer, step_of


@pytest.mark.parametrize("source", ["student", "frozen"])
@pytest.mark.parametrize("micro_batch", [0, 1, 3])
def test_gradients_are_those_of_two_separate_models(model, source, micro_batch):
    """The student's, after it has moved away from the frozen model, against a deep copy that never shares a weight."""
    settings = {**QUICK, "weights": "noxattn", "space": "x0", "source": source, "micro_batch": micro_batch, "batch": 4}
    trainer = build_trainer(ESD(**settings), model, Erasure(("cat",)))
    twin = copy.deepcopy(model.unet)
    for master, name in zip(trainer.update.masters, trainer.update.names, strict=True):
        with torch.no_grad():
            master.add_(0.05 * torch.randn(master.shape, generator=torch.Generator().manual_seed(len(name))))
        twin.get_parameter(name.removeprefix("unet.")).data.copy_(master)
    step = step_of(trainer)
    queries = trainer.terms[0].build_queries(trainer.context, step)
    ours: list[torch.Tensor] = []
    trainer.update.step = ours.extend  # type: ignore[method-assign]
    loss = trainer.step(step)["erase"]

    states, tokens = queries["student"].states, queries["student"].cond.tokens
    nothing = trainer.context.uncond.expand(4).tokens
    with torch.no_grad():
        eps_0, eps_c = (model.unet(states.x, states.t, c).sample for c in (nothing, tokens))
    student = twin(states.x, states.t, tokens).sample
    weight = trainer.context.weigh_loss(states.t, "x0")
    theirs = ((student - negative_guidance(eps_0, eps_c, 1.0)).square().flatten(1).mean(1) * weight).mean()
    theirs.backward()
    assert loss == pytest.approx(theirs.item(), rel=1e-4)
    for name, grad in zip(trainer.update.names, ours, strict=True):
        reference = twin.get_parameter(name.removeprefix("unet.")).grad
        assert torch.allclose(grad, reference, rtol=1e-3, atol=1e-5 * reference.abs().max() + 1e-9), name


def test_sources_agree_at_the_base(model):
    """Before the first update student and frozen model are one: the same states, whoever draws them."""
    erasure = Erasure(("cat",))
    student, frozen = (
        build_trainer(ESD(**{**QUICK, "source": source, "draw_steps": 4}), model, erasure)
        for source in ("student", "frozen")
    )
    seeds = frozen.terms[0].source.list_seeds(frozen.context)
    step = Step(0, student.update, torch.Generator(), [0, 0], [0, 0], seeds, [3, 1])
    cond = model.encode(["cat", "cat"])
    one, two = (
        trainer.terms[0].source.sample_states(trainer.context, step, ["cat", "cat"], cond)
        for trainer in (student, frozen)
    )
    assert torch.allclose(one.x, two.x, atol=1e-6)
    assert torch.equal(one.t, two.t)
    eps_0, eps_c = model.predict(two.x, two.t, frozen.context.uncond, cond)
    assert torch.allclose(two.known["eps_c"], eps_c, atol=1e-6)
    assert torch.allclose(two.known["eps_0"], eps_0, atol=1e-6)


def test_what_is_known_is_not_asked_again(eps_model, monkeypatch):
    trainer = build_trainer(ESD(**{**QUICK, "source": "frozen"}), eps_model, Erasure(("cat",)))
    queries = trainer.terms[0].build_queries(trainer.context, step_of(trainer))
    monkeypatch.setattr(eps_model, "predict", lambda *a: pytest.fail("asked the network"))
    predictions = trainer.predictor.predict_teacher([queries["eps_0"], queries["eps_c"]])
    assert torch.equal(predictions[id(queries["eps_c"])], queries["eps_c"].states.known["eps_c"])


def test_clock_and_counts(eps_model):
    settings = {**QUICK, "source": "frozen"}
    calls: list[tuple] = []
    edit = EAP(**settings, search_turns=2).fit(
        eps_model, Erasure(("cat",)), progress=lambda *a, **info: calls.append((*a, info["learner"]))
    )
    assert [learner for *_, learner in calls] == ["Dense", "VocabularySearch", "VocabularySearch"] * 3
    assert calls[-1][:2] == (9, 9)
    assert len(edit.meta["notes"]["favourites"]["cat"]) == 6
    none = build_trainer(EAP(**settings, search_turns=0), eps_model, Erasure(("cat",)))
    assert len(none.learners) == 1


def test_a_training_does_not_depend_on_what_the_process_encoded_before():
    """The last bits of SDXL's pooled embedding depend on the prompts beside it in a batch, so none is taken over."""
    method = EraseDiff(steps=2, batch=2, draw_steps=2, pictures=2, guidance=2.0, lr=1e-3, label="bus")
    erasure = Erasure(("cat",), keep=("dog", "car", "house"))
    fresh, used = tiny_sdxl(), tiny_sdxl()
    used.encode(["house", "dog", "car", "cat", ""])
    trainer = method.build_trainer(used, erasure)
    estimate(trainer)
    used.encode(["bus", "house", "dog", "car", "cat"])
    first, second = method.build_trainer(fresh, erasure).train().values, trainer.train().values
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_nan_stops_with_the_last_good_state(eps_model, tmp_path, monkeypatch):
    """The state in which it left the numbers is neither handed out nor left as a checkpoint."""
    file = tmp_path / "checkpoint"
    monkeypatch.setattr("efface.training.trainer.SAVE_EVERY", 2)

    def poison(done, of, **info):
        if done == 3:
            nan = NoiseLevel.from_alpha_bar(torch.tensor([float("nan")]))
            monkeypatch.setattr(eps_model, "find_noise_level", lambda t: nan.expand(len(t)))

    with pytest.raises(Diverged, match=r"ESD diverged at step 4 \(Dense\): loss .*erase.*nan") as caught:
        ESD(**{**QUICK, "steps": 9}, space="x0").fit(eps_model, Erasure(("cat",)), progress=poison, checkpoint=file)
    monkeypatch.undo()
    good = ESD(**{**QUICK, "steps": 2}, space="x0").fit(eps_model, Erasure(("cat",)))
    assert all(torch.equal(value, good.values[name]) for name, value in caught.value.edit.values.items())
    steps: list[int] = []
    ESD(**{**QUICK, "steps": 9}, space="x0").fit(
        eps_model, Erasure(("cat",)), progress=lambda done, *_, **__: steps.append(done), checkpoint=file
    )
    assert steps[0] == 3


@pytest.mark.parametrize("often", [1, 25])
def test_a_step_that_ruins_the_weights_is_in_no_state_that_is_kept(eps_model, tmp_path, monkeypatch, often):
    """The loss that tells of it comes a step later."""
    file, erasure = tmp_path / "checkpoint", Erasure(("cat",))
    monkeypatch.setattr("efface.training.trainer.SAVE_EVERY", often)
    method = ESD(**{**QUICK, "lr": 1e30})
    with pytest.raises(Diverged, match="at step 2") as caught:
        method.fit(eps_model, erasure, checkpoint=file)
    assert not file.exists()
    trainer = build_trainer(method, eps_model, erasure)
    for master, name in zip(trainer.update.masters, trainer.update.names, strict=True):
        master.data.copy_(caught.value.edit.values[name])
    with torch.no_grad(), trainer.compute_losses(step_of(trainer, 1)) as losses:
        assert losses["erase"].isfinite()


def test_foreign_checkpoint_is_refused(eps_model, tmp_path):
    file = tmp_path / "checkpoint"

    def stop(*_, **__):
        raise KeyboardInterrupt

    import efface.training.trainer

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(efface.training.trainer, "SAVE_EVERY", 1)
        ESD(**QUICK).fit(eps_model, Erasure(("cat",)), progress=stop, checkpoint=file)
    with pytest.raises(ValueError, match=r"another run \(differs in arguments, request\)"):
        ESD(**{**QUICK, "lr": 1e-2}).fit(eps_model, Erasure(("dog",)), checkpoint=file)
    with pytest.raises(ValueError, match="not an edit"):
        Edit.load(file)


def test_adam_is_torchs_and_resumes():
    start = torch.randn(4, 3)
    mine, reference = start.clone().requires_grad_(), start.clone().requires_grad_()
    adam, torchs = Adam32bit([mine], 1e-2), torch.optim.Adam([reference], lr=1e-2)
    for i in range(6):
        grad = torch.randn(4, 3, generator=torch.Generator().manual_seed(i))
        if i == 3:
            state, mine = adam.state_dict(), torch.zeros(4, 3, requires_grad=True)
            adam = Adam32bit([mine], 1e-2)
            adam.load_state_dict(state)
        adam.step([grad])
        reference.grad = grad.clone()
        torchs.step()
    assert torch.equal(mine, reference)


def test_ask_of_one_condition_serves_all_rows(eps_model):
    trainer = build_trainer(ESD(**QUICK), eps_model, Erasure(("cat",)))
    query = Query(
        States(torch.zeros(3, *eps_model.latent_shape), torch.tensor([1, 2, 3])), trainer.context.uncond, "teacher"
    )
    assert len(trainer.predictor.predict_teacher([query])[id(query)]) == 3


@pytest.mark.parametrize("anchor", ["", "dog"])
def test_fixed_prompts_and_anchor_are_answers_too(eps_model, anchor):
    """A mix nobody has published: the anchor's prediction, fixed prompts kept."""
    method = ESD(**QUICK, source="frozen")
    terms = [
        Anchor(build_trajectories(method, 2), "eps"),
        FixedPrompts(build_trajectories(method, 2), ["dog", "a car"], "eps"),
    ]
    parts = {"terms": terms, "update": method.build_update(), "balance": method.build_balance()}
    trainer = Trainer(
        eps_model,
        Erasure(("cat",), anchor=anchor),
        name="mix",
        arguments=asdict(method),
        config=method.build_config(),
        **parts,
    )
    losses: list[dict[str, float]] = []
    assert trainer.train(lambda *_, loss, **__: losses.append(loss)).values
    assert losses[0]["erase"] > 0
    assert losses[0]["keep"] == pytest.approx(0, abs=1e-6)
    assert losses[-1]["keep"] > 0
    with pytest.raises(ValueError, match="no prompts to preserve"):
        FixedPrompts(build_trajectories(method, 2), [], "eps")


def test_a_role_that_is_differentiated_by_itself_meets_its_own_rows_alone(eps_model):
    """EraseDiff's two gradients are those of one joint pass, and each recomputes no rows but its own."""
    how = {"batch": 2, "micro_batch": 1, "pictures": 2, "remain_words": 2, "draw_steps": 2, "label": "dog", "steps": 1}
    trainer = EraseDiff(**how).build_trainer(eps_model, Erasure(("cat",)))
    params, step, rows = trainer.update.list_params(), step_of(trainer), []
    eps_model.unet.register_forward_pre_hook(
        lambda _, args: rows.append(len(args[0])) if torch.is_grad_enabled() else None
    )
    apart = [trainer.compute_gradient(step, {role: 1.0}) for role in ("erase", "keep")]
    erase, keep = 4, 2  # erasing asks under the target and under the label
    assert sum(rows) == 2 * (erase + keep)
    with trainer.compute_losses(step_of(trainer)) as losses:
        for (found, grads), (role, loss) in zip(apart, losses.items(), strict=True):
            assert found == {role: pytest.approx(loss.item(), rel=1e-4)}
            for one, other in zip(grads, torch.autograd.grad(loss, params, retain_graph=True), strict=True):
                assert torch.allclose(one, other, rtol=1e-3, atol=1e-6)


def test_what_one_role_computed_is_gone_before_the_next_is_asked(eps_model):
    """The step of two gradients takes no more room at once than its larger pass and the gradient that waits."""
    trainer = EraseDiff(batch=8, pictures=2, remain_words=2, draw_steps=2, label="dog", steps=1).build_trainer(
        eps_model, Erasure(("cat",))
    )

    def peak(work) -> int:
        with AllocationTracker(list_tensors(trainer)) as tally:
            work()
        return tally.peak

    trainer.compute_gradient(step_of(trainer), {"keep": 1.0})  # draws the pictures
    alone = max(
        peak(lambda role=role: trainer.compute_gradient(step_of(trainer), {role: 1.0})) for role in ("erase", "keep")
    )
    waiting = count_bytes(trainer.update.list_params())
    assert peak(lambda: trainer.balance(partial(trainer.compute_gradient, step_of(trainer)), None)) < 1.02 * (
        alone + waiting
    )
