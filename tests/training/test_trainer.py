from __future__ import annotations

import copy
import dataclasses
from dataclasses import asdict
from functools import partial
from itertools import chain

import pytest
import torch

import efface
from efface.concept import Erasure
from efface.edits.edit import Edit, WrongBase, apply
from efface.functional.gumbel import gumbel_softmax
from efface.functional.losses import negative_guidance
from efface.functional.schedules import NoiseLevel
from efface.methods.age import AGE
from efface.methods.eap import EAP
from efface.methods.erasediff import EraseDiff
from efface.methods.esd import ESD
from efface.methods.states import build_trajectories
from efface.models.adapters.sd import StableDiffusion
from efface.planning.estimating import estimate
from efface.planning.probe_steps import list_tensors
from efface.planning.tracker import AllocationTracker, count_bytes
from efface.training.interfaces import Query, States, Step
from efface.training.objectives.anchor import Anchor
from efface.training.optim import Adam32bit
from efface.training.preservation.prompts import FixedPrompts
from efface.training.trainer import Diverged, Trainer
from efface.training.vocabulary_search import SearchConfig, Vocabulary, VocabularySearch
from tiny import tiny_model, tiny_pipeline
from tiny_ddpm import tiny_ddpm
from tiny_sdxl import tiny_sdxl

QUICK = {"steps": 3, "batch": 2, "draw_steps": 3, "lr": 1e-3, "paths": 2}


def trainer_of(method: ESD | EAP, model: StableDiffusion, erasure: Erasure) -> Trainer:
    parts = {
        "terms": method.build_terms(model, erasure),
        "update": method.build_update(),
        "balance": method.build_balance(),
    }
    return Trainer(model, erasure, name="test", arguments=asdict(method), config=method.build_config(), **parts)


def step_of(trainer: Trainer, index: int = 0) -> Step:
    return trainer.make_step(index, trainer.learners[index % len(trainer.learners)])


def moved(trainer: Trainer, index: int) -> float:
    return trainer.step(step_of(trainer, index))["keep"]


@pytest.mark.parametrize("source", ["student", "frozen"])
@pytest.mark.parametrize("micro_batch", [0, 1, 3])
def test_gradients_are_those_of_two_separate_models(model, source, micro_batch):
    """The student's, after it has moved away from the frozen model, against a deep copy that never shares a weight."""
    settings = {**QUICK, "weights": "noxattn", "space": "x0", "source": source, "micro_batch": micro_batch, "batch": 4}
    trainer = trainer_of(ESD(**settings), model, Erasure(("cat",)))
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
        trainer_of(ESD(**{**QUICK, "source": source, "draw_steps": 4}), model, erasure)
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
    trainer = trainer_of(ESD(**{**QUICK, "source": "frozen"}), eps_model, Erasure(("cat",)))
    queries = trainer.terms[0].build_queries(trainer.context, step_of(trainer))
    monkeypatch.setattr(eps_model, "predict", lambda *a: pytest.fail("asked the network"))
    predictions = trainer.predictor.predict_teacher([queries["eps_0"], queries["eps_c"]])
    assert torch.equal(predictions[id(queries["eps_c"])], queries["eps_c"].states.known["eps_c"])


@pytest.mark.parametrize("source", ["student", "frozen"])
def test_the_search_learns_nothing_at_the_base(model, source):
    """At theta = theta* the preservation is zero for every candidate, and so is its gradient."""
    trainer = trainer_of(EAP(**{**QUICK, "source": source}), model, Erasure(("cat",)))
    search = trainer.terms[1].search
    grads: list[torch.Tensor] = []
    search.step = grads.extend  # type: ignore[method-assign]
    assert moved(trainer, 1) == pytest.approx(0, abs=1e-9)
    assert grads[0].abs().max() < 1e-5


def test_the_search_has_its_gradient_through_the_students_condition_alone(eps_model):
    trainer = trainer_of(EAP(**{**QUICK, "source": "student"}), eps_model, Erasure(("cat",)))
    term = trainer.terms[1]
    queries = term.build_queries(trainer.context, step_of(trainer, 1))
    assert queries["student"].cond.tokens.requires_grad
    assert not queries["eps_c"].cond.tokens.requires_grad
    assert not queries["student"].states.x.requires_grad


def test_the_search_finds_the_word_that_is_damaged_most():
    """Against the brute-force argmax, on a toy landscape: orthogonal words, each damaged by its own amount."""
    rng = torch.Generator().manual_seed(3)
    table = torch.linalg.qr(torch.randn((8, 8), generator=rng)).Q
    damage = torch.tensor([0.1, 0.3, 0.2, 2.0, 0.5, 1.0, 0.4, 0.1])
    shift = table.t() @ damage.diag() @ table
    search = VocabularySearch(Vocabulary([]), SearchConfig(lr=0.05, temperature=2.0, hard=True, steps_per_round=1))
    search.start([8], torch.device("cpu"))
    for _ in range(400):
        word = gumbel_softmax(search.logits[0], 2.0, True, rng) @ table
        (grad,) = torch.autograd.grad((shift @ word).square().sum(), search.list_params())
        search.step([grad])
    assert search.history[-1].tolist() == [int((shift @ table.t()).square().sum(0).argmax())] == [3]


def test_what_is_preserved_is_read_anew_where_the_text_encoder_learns(eps_model):
    """At the base nothing is lost; after a step of the text encoder's weights the words are answered otherwise."""
    settings = {**QUICK, "weights": r"text_encoder\..*", "search_gradient": "score", "lr": 1e-2}
    for more in (
        {"source": "student"},
        {"source": "frozen"},
        {"search_turns": 0, "search_gradient": "straight-through"},
    ):
        losses: list[float] = []
        EAP(**{**settings, **more}).fit(
            eps_model, Erasure(("cat",)), progress=lambda *_, loss, losses=losses, **__: losses.append(loss["keep"])
        )
        assert losses[0] == pytest.approx(0, abs=1e-9)
        assert min(losses[1:]) > 1e-9


@pytest.mark.parametrize(
    ("name", "more"),
    [("eap", {}), ("eap", {"hard": False}), ("age", {}), ("spm", {"gate": False}), ("compose", {})],
)
def test_what_cannot_be_read_anew_is_refused(eps_model, name, more):
    more = {**more, "preserve": "adversarial", "objective": "attacked"} if name == "compose" else more
    with pytest.raises(ValueError, match=r"trains a text encoder, .*take weights of the U-Net"):
        efface.erase(eps_model, "cat", name, **{**QUICK, "paths": 1, "weights": r"text_encoder\..*", **more})


def test_clock_and_counts(eps_model):
    settings = {**QUICK, "source": "frozen"}
    calls: list[tuple] = []
    edit = EAP(**settings, search_turns=2).fit(
        eps_model, Erasure(("cat",)), progress=lambda *a, **info: calls.append((*a, info["learner"]))
    )
    assert [learner for *_, learner in calls] == ["Dense", "VocabularySearch", "VocabularySearch"] * 3
    assert calls[-1][:2] == (9, 9)
    assert len(edit.meta["notes"]["favourites"]["cat"]) == 6
    none = trainer_of(EAP(**settings, search_turns=0), eps_model, Erasure(("cat",)))
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


def test_vocabulary_leaves_out_target_plural_exclusions_and_near_words(eps_model):
    eps_model.own_words = ("cat", "cats", "red cat", "dog", "car", "tiger", "kitten", "leopard")
    erasure = Erasure(("cat",), keep=("rose",))
    trainer = trainer_of(EAP(**QUICK, exclude=("kitten",), margin=0.0), eps_model, erasure)
    assert set(trainer.terms[1].search.lists[0]) == {"rose", "dog", "car", "tiger", "leopard"}
    trainer = trainer_of(EAP(**QUICK, margin=1.0), eps_model, erasure)
    assert len(trainer.terms[1].search.lists[0]) < 6
    with pytest.raises(ValueError, match="leaves no candidate"):
        trainer_of(EAP(**QUICK, margin=50.0), eps_model, erasure)


@pytest.mark.parametrize("kind", [EAP, AGE])
@pytest.mark.parametrize("centres", [2, 4])
def test_each_of_several_targets_has_as_many_candidates_as_one(eps_model, kind, centres):
    """Also where there are more targets than centres; the authors give each target all of theirs."""
    words = [f"{a}{b}" for a in ("red", "big", "old") for b in ("car", "rose", "lion", "truck", "apple")]
    targets = ("cat", "dog", "tiger")
    eps_model.own_words = (*targets, *words)
    trainer = trainer_of(kind(**QUICK, centres=centres), eps_model, Erasure(targets))
    lists = trainer.terms[1].search.lists
    assert [len(found) for found in lists] == [centres] * 3
    assert not {*targets} & {word for found in lists for word in found}


def test_the_plan_counts_the_candidates_of_every_target(eps_model):
    """Stored trajectories and tables of embeddings, of one target and of three."""
    words = [f"{a}{b}" for a in ("red", "big", "old") for b in ("car", "rose", "lion", "truck", "apple")]
    eps_model.own_words = ("cat", "dog", "tiger", *words)
    plans, trainers = [], []
    for targets in (("cat",), ("cat", "dog", "tiger")):
        trainer = trainer_of(EAP(**QUICK, centres=4, source="frozen"), eps_model, Erasure(targets))
        trainers.append(trainer)
        plans.append(estimate(trainer))
    tables = [x.terms[1].search.held_bytes for x in trainers]
    assert tables[1] == 3 * tables[0] == 12 * eps_model.encode(["cat"]).tokens.nbytes
    # Two trajectories of each target, and one of each word that is a candidate of any.
    drawn = [2 * len(x.erasure.targets) + len({*chain(*x.terms[1].search.lists)}) for x in trainers]
    assert drawn[1] > drawn[0]
    assert plans[1].recorded * drawn[0] == plans[0].recorded * drawn[1]
    assert plans[1].kept - plans[0].kept == plans[1].recorded - plans[0].recorded + tables[1] - tables[0]


def test_the_choices_of_targets_that_a_step_does_not_ask_about_stay(eps_model):
    """Their logits and their moments, after steps that moved them: Adam's momentum waits with them."""
    trainer = trainer_of(EAP(**{**QUICK, "lr": 1e-2}), eps_model, Erasure(("cat", "dog")))
    search = trainer.terms[1].search
    for index in range(4):
        trainer.step(step_of(trainer, index))
    assert all(len(logits.unique()) > 1 for logits in search.logits)
    alone = dataclasses.replace(trainer.make_step(5, search), targets=[1, 1])
    before = search.state_dict()
    trainer.step(alone)
    after = search.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items() if key.startswith("0."))
    assert not torch.equal(before["1.param"], after["1.param"])


def test_words_near_any_target_are_no_targets_candidates(eps_model):
    """The word nearest to either is in neither's list, with a margin just beyond it, by distances taken by hand."""
    words = ["tiger", "leopard", "apple", "tomato", "rose", "lion", "truck", "car"]
    eps_model.own_words = ("cat", "dog", *words)
    flat = {word: eps_model.encode([word]).flatten()[0] for word in ("cat", "dog", *words)}
    for target in ("cat", "dog"):
        far = torch.stack([(flat[word] - flat[target]).norm() for word in words])
        margin = 1.001 * float(far.min() / far.median())
        trainer = trainer_of(EAP(**QUICK, margin=margin), eps_model, Erasure(("cat", "dog")))
        assert all(words[int(far.argmin())] not in found for found in trainer.terms[1].search.lists)


@pytest.mark.parametrize("bad", ["k_closest", "centres"])
def test_too_few_candidates_are_called_by_their_name(eps_model, bad):
    with pytest.raises(ValueError, match=f"{bad} must be at least 1, got 0"):
        trainer_of(EAP(**QUICK, **{bad: 0}), eps_model, Erasure(("cat",)))


@pytest.mark.parametrize("word", ["cat", "Cats", "a cat"])
def test_a_file_of_words_that_holds_the_target_is_refused(eps_model, tmp_path, word):
    file = tmp_path / "words"
    file.write_text(f"dog\n{word}\ncar\n")
    with pytest.raises(ValueError, match=rf"holds what is to be erased: {word}; .*\(cat\)"):
        trainer_of(EAP(**QUICK, vocabulary=str(file)), eps_model, Erasure(("cat",)))


def test_the_tokenizers_words_are_a_vocabulary(eps_model):
    """All its whole words, those beyond the model's own among them; never the target, its plural or a part of one."""
    eps_model.own_words = ("dog", "car")
    whole = {t.removesuffix("</w>") for t in eps_model.tokenizer.get_vocab() if t.endswith("</w>") and len(t) > 6}
    wide = {**QUICK, "centres": 10**6, "k_closest": 10**6, "margin": 0.0}
    trainer = trainer_of(EAP(**wide, vocabulary="tokenizer"), eps_model, Erasure(("cat",)))
    (found,) = trainer.terms[1].search.lists
    assert len(found) > 2
    assert set(found) == {word for word in whole if word.isascii() and word.isalpha()} - {"cat", "cats"}
    (own,) = trainer_of(EAP(**wide), eps_model, Erasure(("cat",))).terms[1].search.lists
    assert set(own) == {"dog", "car"}
    with pytest.raises(ValueError, match="has no tokenizer; give a file of words instead"):
        EAP(**wide, vocabulary="tokenizer").build_search(tiny_ddpm(), Erasure(("cat",)))


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
    trainer = trainer_of(method, eps_model, erasure)
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


def edits(model: StableDiffusion) -> tuple[Edit, Edit]:
    one = ESD(**QUICK, weights="xattn").fit(model, Erasure(("cat",)))
    two = ESD(**QUICK, weights="xattn-strict,selfattn").fit(model, Erasure(("dog",)))
    return one, two


def test_several_edits_add_up_and_overlaps_are_reported(eps_model):
    one, two = edits(eps_model)
    base = eps_model.weights
    shared = next(name for name in one.values if name in two.values)
    with (
        pytest.warns(UserWarning, match="weights are changed by several edits"),
        apply(eps_model, [one, two], [1, 0.5]),
    ):
        now = eps_model.weights
        expected = base[shared] + (one.values[shared] - base[shared]) + 0.5 * (two.values[shared] - base[shared])
        assert torch.allclose(now[shared], expected)
    assert all(now is before for now, before in zip(eps_model.weights.values(), base.values(), strict=True))


def test_strength_is_linear(eps_model):
    one, _ = edits(eps_model)
    name = next(iter(one.values))
    base = eps_model.weights[name].detach().clone()
    with one.apply(eps_model, 2.0):
        assert torch.allclose(eps_model.weights[name], base + 2 * (one.values[name] - base))


def test_another_base_is_refused_with_both_fingerprints(eps_model):
    one, _ = edits(eps_model)
    other = tiny_model(seed=1)
    with pytest.raises(WrongBase, match="made for 'tiny' with fingerprint") as caught, one.apply(other):
        pass
    assert one.meta["base"]["fp32"][:12] in str(caught.value)
    assert other.fingerprint()["fp32"][:12] in str(caught.value)


def test_the_base_at_another_dtype_is_accepted():
    one, _ = edits(tiny_model())
    half = efface.load(tiny_pipeline(), dtype="bf16")
    with one.apply(half):
        assert half.weights[next(iter(one.values))].dtype == torch.bfloat16


def test_export_opens_elsewhere(eps_model, tmp_path):
    one, _ = edits(eps_model)
    one.export(eps_model, tmp_path / "out")
    plain = efface.load(str(tmp_path / "out"), device="cpu")
    with one.apply(eps_model):
        expected = eps_model.images(["a cat"], [0])
    assert torch.equal(plain.images(["a cat"], [0], steps=4, guidance=3.0), expected)


def test_swap_in_refuses_unknown_names(eps_model):
    with pytest.raises(KeyError, match="no weight 'nonsense'"), eps_model.swap_in({"nonsense": torch.zeros(1)}):
        pass


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
    trainer = trainer_of(ESD(**QUICK), eps_model, Erasure(("cat",)))
    query = Query(
        States(torch.zeros(3, *eps_model.latent_shape), torch.tensor([1, 2, 3])), trainer.context.uncond, "teacher"
    )
    assert len(trainer.predictor.predict_teacher([query])[id(query)]) == 3


def test_vocabulary_from_a_file_and_mixtures(eps_model, tmp_path):
    file = tmp_path / "words"
    file.write_text("dog\n\n car \n")
    trainer = trainer_of(EAP(**QUICK, vocabulary=str(file), hard=False), eps_model, Erasure(("cat",)))
    assert sorted(trainer.terms[1].search.lists[0]) == ["car", "dog"]
    assert trainer.train().values
    with pytest.raises(ValueError, match="no stored trajectory"):
        trainer_of(EAP(**QUICK, hard=False, source="frozen"), eps_model, Erasure(("cat",)))


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
