"""Identities between the objectives, which no implementation of one alone could show."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from efface.concept import Erasure
from efface.functional.schedules import Space
from efface.methods.ac import AC
from efface.methods.esd import ESD
from efface.training.config import TrainConfig
from efface.training.interfaces import Context, Query, States, Step, Term
from efface.training.objectives.adaptive_anchor import AdaptiveAnchor
from efface.training.objectives.anchor import Anchor
from efface.training.objectives.denoising import Denoising
from efface.training.objectives.gem import GEM
from efface.training.objectives.guidance import Guidance
from efface.training.objectives.negative_guidance import NegativeGuidance
from efface.training.objectives.wrong_noise import WrongNoise
from efface.training.preservation.adversarial import Adversarial
from efface.training.preservation.unconditional import Unconditional
from efface.training.states.pictures import ANY, Pictures
from efface.training.states.shared import Shared
from efface.training.trainer import Trainer
from efface.training.updates.dense import Dense
from efface.training.vocabulary_search import SearchConfig, Vocabulary, VocabularySearch
from oracle import CLASSES, SHAPE, Fixed, OracleModel, build_trainer
from tiny import tiny_model

PICTURES = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0))


def build_pictures(noise: str = "gaussian") -> Pictures:
    return Pictures(1, 3, 1.0, {ANY: PICTURES}, noise)  # type: ignore[arg-type]


def build_moved_trainer(model: OracleModel, terms: list[Term], batch: int = 8) -> Trainer:
    """The student somewhere else than the base."""
    trainer = build_trainer(model, terms, batch=batch)
    with torch.no_grad():
        trainer.update.masters[0].normal_(generator=torch.Generator().manual_seed(1))
    return trainer


def build_objective(name: str, source, space: Space) -> list[Term]:
    search = VocabularySearch(
        Vocabulary(CLASSES), SearchConfig(lr=1e-2, temperature=1.0, hard=False, steps_per_round=0, top=2)
    )
    adaptive = AdaptiveAnchor(source, search, 1.0, space)
    return {
        "negative": lambda: [NegativeGuidance(source, 1.0, space)],
        "anchor": lambda: [Anchor(source, space)],
        "guidance": lambda: [Guidance(source, "alternative", 1.0, True, space)],
        "label": lambda: [WrongNoise(source, ["car"], "label", space)],
        "uniform": lambda: [WrongNoise(source, (), "uniform", space)],
        "denoising": lambda: [Denoising(source, space, "erase")],
        "adaptive": lambda: [adaptive, Adversarial(source, search, space)],
        "unconditional": lambda: [Unconditional(source, space)],
    }[name]()


OBJECTIVES = ("negative", "anchor", "guidance", "label", "uniform", "denoising", "adaptive", "unconditional")


@pytest.mark.parametrize("t", [1, 401, 801, 981])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_measured_as_pictures_a_loss_grows_by_the_noise_to_signal_ratio(name, t):
    model = OracleModel()
    at = States(torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(t)), torch.tensor([t]))
    at.known["noise"] = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(9))  # type: ignore[index]
    losses = []
    for space in ("eps", "x0"):
        trainer = build_moved_trainer(model, build_objective(name, Fixed(at), space), batch=1)
        with trainer.compute_losses(trainer.make_auxiliary_step(0, 0)) as found:
            losses.append({role: loss.item() for role, loss in found.items()})
    a = model.levels.alpha.square()[t].item()
    eps, x0 = losses
    assert eps.keys() == x0.keys()
    for role, loss in eps.items():
        assert loss > 0
        assert x0[role] == pytest.approx(loss * (1 - a) / a, rel=1e-5)


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("eta", [0.5, 1.0, 3.0])
def test_all_but_one_is_esd_where_the_unconditional_score_has_not_moved(eta, detach):
    source = Fixed(OracleModel().sample_states(8))
    ours, theirs = Guidance(source, "negative", eta, detach, "x0"), NegativeGuidance(source, eta, "x0")
    assert compute_loss(ours, "student_c") == pytest.approx(compute_loss(theirs, "student"), rel=1e-5)


@pytest.mark.parametrize("detach", [True, False])
def test_all_but_one_is_concept_ablation_where_the_unconditional_score_has_not_moved(detach):
    source = Fixed(OracleModel().sample_states(8))
    ours, theirs = Guidance(source, "alternative", 1.0, detach, "eps"), Anchor(source, "eps")
    assert compute_loss(ours, "student_c") == pytest.approx(compute_loss(theirs, "student"), rel=1e-5)


def test_beyond_the_rest_of_its_prompt_only_what_the_target_adds_is_pushed_away():
    model, eta = tiny_model(), 1.5
    source = Fixed(States(torch.randn(2, *model.latent_shape), torch.tensor([300, 700])))
    term = NegativeGuidance(source, eta, "eps", "rest")
    trainer = build_trainer(model, [term], weights="xattn", batch=2, templates=("a {} apple",))
    queries = term.build_queries(trainer.context, trainer.make_auxiliary_step(0, 0))
    assert queries is not None and list(queries["student"].prompts) == ["a cat apple"] * 2
    # The teacher is asked anew: a source's recordings under the empty prompt are another prediction.
    assert queries["eps_0"].role == "teacher" and not queries["eps_0"].known
    assert torch.equal(queries["eps_0"].cond.tokens, model.encode(["a apple"] * 2).tokens)
    full, rest, said = (torch.randn(2, *model.latent_shape) for _ in range(3))
    loss = term.compute_loss(trainer.context, queries, {"student": said, "eps_c": full, "eps_0": rest})
    assert loss.item() == pytest.approx((said - (rest - eta * (full - rest))).square().mean().item(), rel=1e-5)


def test_where_a_prompt_is_the_target_alone_its_rest_is_the_empty_prompt():
    source = Fixed(OracleModel().sample_states(8))
    ours, published = (NegativeGuidance(source, 1.5, "x0", beyond) for beyond in ("rest", "empty"))
    assert compute_loss(ours, "student") == compute_loss(published, "student")
    with pytest.raises(ValueError, match="no prediction 'anchor' to push the target beyond; there are empty, rest"):
        NegativeGuidance(source, 1.0, "eps", "anchor")  # type: ignore[arg-type]


def compute_loss(term: Term, key: str) -> float:
    """The term's loss where the student answers this ask as it likes, and all others as the frozen model does."""
    trainer = build_trainer(OracleModel(), [term], batch=8)
    queries = term.build_queries(trainer.context, trainer.make_auxiliary_step(0, 0))
    assert queries is not None
    predictions = {k: trainer.model.predict(a.states.x, a.states.t, a.cond)[0].detach() for k, a in queries.items()}
    predictions[key] = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(2))
    return term.compute_loss(trainer.context, queries, predictions).item()


def compute_gradient_by_prediction(term: Term, keys: tuple[str, ...]) -> Mapping[str, Tensor | None]:
    """The gradient of the term's loss for what the student said to each of its asks."""
    trainer = build_moved_trainer(OracleModel(), [term])
    queries = term.build_queries(trainer.context, trainer.make_auxiliary_step(0, 0))
    assert queries is not None
    with trainer.update.swapped_in():
        predictions = {k: trainer.model.predict(a.states.x, a.states.t, a.cond)[0].detach() for k, a in queries.items()}
    for key in keys:
        predictions[key].requires_grad_()
    grads = torch.autograd.grad(
        term.compute_loss(trainer.context, queries, predictions), [predictions[k] for k in keys], allow_unused=True
    )
    return dict(zip(keys, grads, strict=True))


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("goal", ["alternative", "neutral", "negative"])
def test_held_the_unconditional_pass_has_no_gradient_from_the_guidance(goal, detach):
    term = Guidance(Fixed(OracleModel().sample_states(8)), goal, 1.0, detach, "eps")
    grads = compute_gradient_by_prediction(term, ("student_c", "student_0"))
    assert grads["student_c"].abs().min() > 0
    assert grads["student_0"] is None if detach else torch.equal(grads["student_0"], -grads["student_c"])


def test_another_label_has_no_gradient():
    term = WrongNoise(Fixed(OracleModel().sample_states(8)), ["car"], "label", "eps")
    grads = compute_gradient_by_prediction(term, ("student", "wrong"))
    assert grads["student"].abs().min() > 0
    assert grads["wrong"] is None


def test_another_label_is_asked_of_the_student():
    """The current model's answer, not the frozen one's: EraseDiff's stop-gradient."""
    term = WrongNoise(Fixed(OracleModel().sample_states(8)), ["car"], "label", "eps")
    trainer = build_moved_trainer(OracleModel(), [term])
    queries = term.build_queries(trainer.context, trainer.make_auxiliary_step(0, 0))
    assert queries["wrong"].role == "student"
    assert torch.equal(queries["wrong"].cond.pooled, torch.eye(4)[[2] * 8])


@pytest.mark.parametrize("space", ["eps", "v", "x0"])
def test_noise_based_ablation_learns_the_true_noise_in_the_models_own_space(space):
    """On pictures of the anchor, under the target's name."""
    model = OracleModel(space)
    (term,) = AC(variant="noise", weights="head", pictures=3, draw_steps=4).build_terms(model, Erasure(("cat",), "dog"))
    trainer = build_trainer(model, [term], batch=6)
    step = trainer.make_auxiliary_step(0, 0)
    queries = term.build_queries(trainer.context, step)
    states, said = (
        queries["student"].states,
        trainer.predictor.predict_teacher([queries["noise"]])[id(queries["noise"])].double(),
    )
    assert queries["student"].prompts == ["cat"] * 6
    assert list(term.source.store) == ["dog"]
    x0 = term.source.store["dog"][[i % 3 for i in step.noise]].double()
    a = model.levels.alpha.square()[states.t].view(-1, 1, 1, 1)
    eps = (states.x.double() - a.sqrt() * x0) / (1 - a).sqrt()
    wanted = {"eps": eps, "v": a.sqrt() * eps - (1 - a).sqrt() * x0, "x0": x0}[space]
    assert torch.allclose(said, wanted, atol=1e-4)
    assert model.find_classes(x0)[:, 1].min() > 0.99


def test_uniform_noise_in_the_state_is_the_noise_that_is_learned():
    term = WrongNoise(build_pictures("uniform"), (), "uniform-noised", "eps")
    trainer = build_trainer(OracleModel(), [term], batch=8)
    step = trainer.make_auxiliary_step(0, 0)
    queries = term.build_queries(trainer.context, step)
    x0, a = (
        PICTURES[[i % 5 for i in step.noise]],
        trainer.model.find_noise_level(queries["wrong"].states.t).alpha.square().float().view(-1, 1, 1, 1),
    )
    noise = trainer.predictor.predict_teacher([queries["wrong"]])[id(queries["wrong"])]
    assert 0 <= noise.min() <= noise.max() < 1
    assert noise.mean().item() == pytest.approx(0.5, abs=0.15)
    assert torch.allclose(a.sqrt() * x0 + (1 - a).sqrt() * noise, queries["student"].states.x, atol=1e-5)


def test_uniform_noise_of_the_target_alone_is_not_in_the_state():
    term = WrongNoise(build_pictures(), (), "uniform", "eps")
    trainer = build_trainer(OracleModel(), [term], batch=8)
    queries = term.build_queries(trainer.context, trainer.make_auxiliary_step(0, 0))
    noise = queries["wrong"].states.known["noise"]
    assert 0 <= noise.min() <= noise.max() < 1
    assert queries["wrong"].states.x is queries["student"].states.x
    x0, a = (
        PICTURES[[i % 5 for i in trainer.make_auxiliary_step(0, 0).noise]],
        trainer.model.find_noise_level(queries["wrong"].states.t).alpha.square().float(),
    )
    a = a.view(-1, 1, 1, 1)
    true = (queries["student"].states.x - a.sqrt() * x0) / (1 - a).sqrt()
    assert true.min() < -0.5
    assert not torch.allclose(noise, true, atol=0.1)


def test_gradient_ascent_is_denoising_turned_round():
    grads = []
    for sign in (1.0, -1.0):
        trainer = build_moved_trainer(OracleModel(), [Denoising(build_pictures(), "eps", "erase", sign=sign)])
        with trainer.compute_losses(trainer.make_auxiliary_step(0, 0)) as losses:
            grads.append(torch.autograd.grad(losses["erase"], trainer.update.list_params())[0])
    assert torch.equal(grads[0], -grads[1])


def test_shared_states_are_asked_about_once(monkeypatch):
    """ABO's two terms: the unconditional prediction of the student is computed once, that of the frozen model too."""
    model = OracleModel()
    source = Shared(build_pictures())
    trainer = build_trainer(
        model, [Guidance(source, "negative", 1.0, True, "eps"), Unconditional(source, "eps")], batch=8
    )
    rows: list[int] = []
    predict = model.predict
    monkeypatch.setattr(model, "predict", lambda x, *a: (rows.append(len(x)), predict(x, *a))[1])
    with trainer.compute_losses(trainer.make_auxiliary_step(0, 0)) as losses:
        assert set(losses) == {"erase", "keep"}
    assert rows == [16, 16]


BAD: list[tuple[Callable[[], object], str]] = [
    (lambda: GEM(build_pictures(), 0.0, "eps"), "eta must be above 0, got 0.0"),
    (lambda: GEM(build_pictures(), -0.5, "eps"), "eta must be above 0, got -0.5"),
    (lambda: Anchor(build_pictures(), "eps", teacher="moved"), "no teacher 'moved'; there are frozen, student"),  # type: ignore[arg-type]
    (lambda: Guidance(build_pictures(), "sideways", 1.0, True, "eps"), "no goal 'sideways'; there are alternative"),  # type: ignore[arg-type]
    (lambda: WrongNoise(build_pictures(), (), "label", "eps"), "needs another concept to take it from"),
    (lambda: WrongNoise(build_pictures(), ("a",), "pink", "eps"), "no wrong noise 'pink'; there are label"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_terms_ask_in_turns_of_the_update_alone():
    terms = ESD(weights="head").build_terms(OracleModel(), Erasure(("cat",)))
    trainer = build_trainer(OracleModel(), terms[:1], batch=2)
    other = VocabularySearch(Vocabulary(CLASSES), SearchConfig(1e-2, 1.0, True, 1))
    step = trainer.make_step(0, other)
    for name in OBJECTIVES:
        first = build_objective(name, build_pictures(), "eps")[0]
        assert first.build_queries(trainer.context, step) is None
    assert all(
        isinstance(a, Query)
        for a in trainer.terms[0].build_queries(trainer.context, trainer.make_auxiliary_step(0, 0)).values()
    )


def test_a_term_is_evaluated_without_a_trainer():
    """A context is enough; at the base the loss is what the world's own predictions for cats and dogs differ by."""
    model, update = OracleModel(), Dense("head", 1e-2)
    config = TrainConfig(steps=1, batch=8, draw_steps=4)
    context = Context(model, Erasure(("cat",), anchor="dog"), config, update, model.encode([""]))
    update.prepare(context)
    term, at = Anchor(Fixed(model.sample_states(8)), "eps"), model.sample_states(8)
    term.prepare(context)
    step = Step(0, update, torch.Generator(), [0] * 8, [0] * 8, list(range(8)), [0] * 8)
    queries = term.build_queries(context, step)
    assert queries is not None
    with update.swapped_in():
        predictions = {k: model.predict(q.states.x, q.states.t, q.cond)[0] for k, q in queries.items()}
    cat, dog = (model.predict_exactly(at.x, at.t, torch.eye(4)[[k] * 8]) for k in (0, 1))
    assert term.compute_loss(context, queries, predictions).item() == pytest.approx(
        (cat - dog).square().mean().item(), rel=1e-4
    )
