"""The search for the word that an erasure damages most: its candidates, its gradient, its choice."""

from __future__ import annotations

import dataclasses
from itertools import chain

import pytest
import torch

import efface
from efface.concept import Erasure
from efface.functional.gumbel import gumbel_softmax
from efface.methods.age import AGE
from efface.methods.eap import EAP
from efface.planning.estimating import estimate
from efface.training.trainer import Trainer
from efface.training.vocabulary_search import SearchConfig, Vocabulary, VocabularySearch
from tiny_ddpm import tiny_ddpm
from trainer_fixtures import QUICK, build_trainer, step_of


def step_keep(trainer: Trainer, index: int) -> float:
    return trainer.step(step_of(trainer, index))["keep"]


@pytest.mark.parametrize("source", ["student", "frozen"])
def test_the_search_learns_nothing_at_the_base(model, source):
    """At theta = theta* the preservation is zero for every candidate, and so is its gradient."""
    trainer = build_trainer(EAP(**{**QUICK, "source": source}), model, Erasure(("cat",)))
    search = trainer.terms[1].search
    grads: list[torch.Tensor] = []
    search.step = grads.extend  # type: ignore[method-assign]
    assert step_keep(trainer, 1) == pytest.approx(0, abs=1e-9)
    assert grads[0].abs().max() < 1e-5


def test_the_search_has_its_gradient_through_the_students_condition_alone(eps_model):
    trainer = build_trainer(EAP(**{**QUICK, "source": "student"}), eps_model, Erasure(("cat",)))
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


def test_vocabulary_leaves_out_target_plural_exclusions_and_near_words(eps_model):
    eps_model.own_words = ("cat", "cats", "red cat", "dog", "car", "tiger", "kitten", "leopard")
    erasure = Erasure(("cat",), keep=("rose",))
    trainer = build_trainer(EAP(**QUICK, exclude=("kitten",), margin=0.0), eps_model, erasure)
    assert set(trainer.terms[1].search.lists[0]) == {"rose", "dog", "car", "tiger", "leopard"}
    trainer = build_trainer(EAP(**QUICK, margin=1.0), eps_model, erasure)
    assert len(trainer.terms[1].search.lists[0]) < 6
    with pytest.raises(ValueError, match="leaves no candidate"):
        build_trainer(EAP(**QUICK, margin=50.0), eps_model, erasure)


@pytest.mark.parametrize("kind", [EAP, AGE])
@pytest.mark.parametrize("centres", [2, 4])
def test_each_of_several_targets_has_as_many_candidates_as_one(eps_model, kind, centres):
    """Also where there are more targets than centres; the authors give each target all of theirs."""
    words = [f"{a}{b}" for a in ("red", "big", "old") for b in ("car", "rose", "lion", "truck", "apple")]
    targets = ("cat", "dog", "tiger")
    eps_model.own_words = (*targets, *words)
    trainer = build_trainer(kind(**QUICK, centres=centres), eps_model, Erasure(targets))
    lists = trainer.terms[1].search.lists
    assert [len(found) for found in lists] == [centres] * 3
    assert not {*targets} & {word for found in lists for word in found}


def test_the_plan_counts_the_candidates_of_every_target(eps_model):
    """Stored trajectories and tables of embeddings, of one target and of three."""
    words = [f"{a}{b}" for a in ("red", "big", "old") for b in ("car", "rose", "lion", "truck", "apple")]
    eps_model.own_words = ("cat", "dog", "tiger", *words)
    plans, trainers = [], []
    for targets in (("cat",), ("cat", "dog", "tiger")):
        trainer = build_trainer(EAP(**QUICK, centres=4, source="frozen"), eps_model, Erasure(targets))
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
    trainer = build_trainer(EAP(**{**QUICK, "lr": 1e-2}), eps_model, Erasure(("cat", "dog")))
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
        trainer = build_trainer(EAP(**QUICK, margin=margin), eps_model, Erasure(("cat", "dog")))
        assert all(words[int(far.argmin())] not in found for found in trainer.terms[1].search.lists)


@pytest.mark.parametrize("bad", ["k_closest", "centres"])
def test_too_few_candidates_are_called_by_their_name(eps_model, bad):
    with pytest.raises(ValueError, match=f"{bad} must be at least 1, got 0"):
        build_trainer(EAP(**QUICK, **{bad: 0}), eps_model, Erasure(("cat",)))


@pytest.mark.parametrize("word", ["cat", "Cats", "a cat"])
def test_a_file_of_words_that_holds_the_target_is_refused(eps_model, tmp_path, word):
    file = tmp_path / "words"
    file.write_text(f"dog\n{word}\ncar\n")
    with pytest.raises(ValueError, match=rf"holds what is to be erased: {word}; .*\(cat\)"):
        build_trainer(EAP(**QUICK, vocabulary=str(file)), eps_model, Erasure(("cat",)))


def test_the_tokenizers_words_are_a_vocabulary(eps_model):
    """All its whole words, those beyond the model's own among them; never the target, its plural or a part of one."""
    eps_model.own_words = ("dog", "car")
    whole = {t.removesuffix("</w>") for t in eps_model.tokenizer.get_vocab() if t.endswith("</w>") and len(t) > 6}
    wide = {**QUICK, "centres": 10**6, "k_closest": 10**6, "margin": 0.0}
    trainer = build_trainer(EAP(**wide, vocabulary="tokenizer"), eps_model, Erasure(("cat",)))
    (found,) = trainer.terms[1].search.lists
    assert len(found) > 2
    assert set(found) == {word for word in whole if word.isascii() and word.isalpha()} - {"cat", "cats"}
    (own,) = build_trainer(EAP(**wide), eps_model, Erasure(("cat",))).terms[1].search.lists
    assert set(own) == {"dog", "car"}
    with pytest.raises(ValueError, match="has no tokenizer; give a file of words instead"):
        EAP(**wide, vocabulary="tokenizer").build_search(tiny_ddpm(), Erasure(("cat",)))


def test_vocabulary_from_a_file_and_mixtures(eps_model, tmp_path):
    file = tmp_path / "words"
    file.write_text("dog\n\n car \n")
    trainer = build_trainer(EAP(**QUICK, vocabulary=str(file), hard=False), eps_model, Erasure(("cat",)))
    assert sorted(trainer.terms[1].search.lists[0]) == ["car", "dog"]
    assert trainer.train().values
    with pytest.raises(ValueError, match="no stored trajectory"):
        build_trainer(EAP(**QUICK, hard=False, source="frozen"), eps_model, Erasure(("cat",)))
