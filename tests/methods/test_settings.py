"""Where a setting's range ends: the last value that works, and the first that is refused, before any work."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from efface import methods
from efface.catalog import OBJECTIVES
from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.methods.ac import AC
from efface.methods.advunlearn import AdvUnlearn
from efface.methods.age import AGE
from efface.methods.answers import build_answer, list_missing, list_offered, parse_options
from efface.methods.base import Trained
from efface.methods.eap import EAP
from efface.methods.erasediff import EraseDiff
from efface.methods.esd import ESD
from efface.methods.salun import SalUn
from efface.methods.spm import SPM
from efface.methods.stereo import STEREO
from efface.training.objectives.anchor import Anchor
from efface.training.objectives.composition import Composition
from efface.training.objectives.denoising import Denoising
from efface.training.objectives.negative_guidance import NegativeGuidance
from efface.training.states.trajectories import Frozen, Refreshed, Student
from tiny_flux import tiny_flux

CAT = Erasure(("cat",))
RANGES: list[tuple[str, str, float, float, str]] = [
    # Method, setting, a value that works, one that does not, and the reason.
    ("esd", "steps", 1, 0, "steps must be at least 1, got 0"),
    ("esd", "batch", 1, 0, "batch must be at least 1, got 0"),
    ("esd", "draw_steps", 1, 0, "draw_steps must be at least 1, got 0"),
    ("esd", "paths", 1, 0, "paths must be at least 1, got 0"),
    ("esd", "refresh", 0, -1, "refresh must be at least 0, got -1"),
    ("esd", "micro_batch", 0, -1, "micro_batch must be at least 0, got -1"),
    ("neggrad", "pictures", 1, 0, "pictures must be at least 1, got 0"),
    ("gem", "first", 1, 0, "first must be at least 1, got 0; the paper's is 10"),
    ("salun", "looks", 0, -1, "looks must be at least 0, got -1"),
    ("age", "top", 1, 0, "a mixture needs at least 1 candidate, got top=0"),
    ("rece", "epochs", 0, -1, "epochs must be at least 0, got -1"),
    ("nullspace", "free", 1.0, 1.01, "free is a share of the directions, at most 1, got 1.01"),
    ("nullspace", "free", 0.01, 0.0, "free must be positive, got 0.0"),
    ("nullspace", "threshold", 1e-6, 9e-7, "less is lost in rounding"),
    ("nullspace", "threshold", 0.99, 1.0, "less is lost in rounding"),
    ("stereo", "rounds", 0, -1, "rounds must be at least 0, got -1"),
    ("mace", "threshold", 0.0, -0.1, "a share from 0 to below 1, got -0.1"),
]


@pytest.mark.parametrize(("name", "setting", "good", "bad", "says"), RANGES)
def test_the_ends_of_a_range(name: str, setting: str, good: float, bad: float, says: str) -> None:
    kind: Any = methods.get(name)
    assert getattr(kind(**{setting: good}), setting) == good
    with pytest.raises(ValueError, match=says):
        kind(**{setting: bad})


COUNTED = ("steps", "batch", "draw_steps", "paths", "pictures")
COUNTS = [
    (name, setting)
    for name in methods.list_names()
    for setting in COUNTED
    if setting in {field.name for field in dataclasses.fields(methods.get(name))}
]


@pytest.mark.parametrize(("name", "setting"), COUNTS)
def test_every_method_refuses_to_count_to_nothing(name: str, setting: str) -> None:
    """Also those that check more settings than their base does."""
    with pytest.raises(ValueError, match=f"^{setting} must be (at least 1|positive), got 0$"):
        methods.get(name)(**{setting: 0})


@pytest.mark.parametrize("name", [name for name in methods.list_names() if issubclass(methods.get(name), Trained)])
def test_a_template_without_a_place_for_the_concept_is_refused(name: str) -> None:
    for templates in (("a cat",), ("{} and {}",), ("a {} {x}",), ("a {} }",), ()):
        with pytest.raises(ValueError, match=r"a template holds the concept as \{\}, once"):
            methods.get(name)(templates=templates)


@pytest.mark.parametrize("name", ["p-esd", "p-ac"])
def test_a_mask_that_cannot_reach_a_weight_is_refused(name: str) -> None:
    kind: Any = methods.get(name)
    assert kind(steps=80, lr=0.05).start == 4.0 and kind(steps=1, sparsity=0.1).steps == 1
    with pytest.raises(ValueError, match=r"in 79 steps of 0\.05 no logit gets from 4 to 0"):
        kind(steps=79, lr=0.05)


def test_levels_that_there_are_none_of() -> None:
    with pytest.raises(ValueError, match="no level 'mild'; there are weak, medium, strong, max"):
        methods.get("sld")(level="mild")


@pytest.mark.parametrize(("transport", "power"), [("paper", 1), ("release", 2)])
def test_spms_gate_acts_by_gamma_or_its_square(transport: Any, power: int, eps_model: Any) -> None:
    name = next(name for name in eps_model.weights if name.endswith("attn2.to_v.weight"))
    rows, columns = eps_model.weights[name].shape
    plain = Edit({f"{name}:down": torch.ones(1, columns), f"{name}:up": torch.ones(rows, 1)}, {})
    gated = SPM(transport=transport).finish(plain, CAT)
    assert gated.meta["guide"]["arguments"] == {"concepts": ["cat"], "layers": [name], "rank": 1, "power": power}
    assert SPM(gate=False, transport=transport).finish(plain, CAT) is plain


def test_transports_that_there_are_none_of() -> None:
    with pytest.raises(ValueError, match=r"no transport 'code'; there are paper \(gamma\), release \(gamma squared\)"):
        methods.get("spm")(transport="code")


@pytest.mark.parametrize(("variant", "kind", "captions"), [("model", Anchor, None), ("noise", Denoising, ["a dog"])])
def test_acs_variants(variant: Any, kind: type, captions: Any, eps_model: Any) -> None:
    """Both learn on pictures of the anchor: towards the prediction for it, or towards the noise under its caption."""
    (term,) = AC(variant=variant, templates=("a {}",)).build_terms(eps_model, Erasure(("cat",), anchor="dog"))
    told: Any = term
    assert type(term) is kind and told.source.drawn == 1000
    assert captions is None or list(told.shown) == captions


@pytest.mark.parametrize(
    ("looks", "anchor", "shown"), [(0, "", ["a dog", "a rose"]), (3, "", ["a dog", "a rose"]), (0, "car", ["a car"])]
)
def test_saluns_saliency_is_that_of_the_forget_pictures_unless_it_looks_at_batches(
    looks: int, anchor: str, shown: list[str], eps_model: Any
) -> None:
    method = SalUn(looks=looks, templates=("a {}",), share=0.25)
    wrong, kept = method.build_terms(eps_model, Erasure(("cat",), anchor=anchor, keep=("dog", "rose")))
    told: Any = wrong
    assert list(told.labels) == shown
    plain: Any = method.build_update()
    assert (plain.share, plain.looks) == (0.25, looks or 1)
    for terms in ((wrong, kept), (kept, wrong)):
        fitted: Any = method.fit_update(plain, terms)
        if looks:
            assert fitted is plain
        else:
            assert (fitted.share, fitted.looks, fitted.saliency.source) == (0.25, 0, told.source)


@pytest.mark.parametrize(("keep", "words"), [((), ["cat", "dog", "car"]), (("rose",), ["rose"])])
def test_advunlearn_retains_what_is_kept_or_common_words(
    keep: tuple[str, ...], words: list[str], eps_model: Any
) -> None:
    terms: list[Any] = list(AdvUnlearn(retain_words=3).build_terms(eps_model, Erasure(("lion",), keep=keep)))
    assert list(terms[1].given) == words


def test_surgical_leaves_the_unconditional_prediction_out_of_the_guidance_terms_gradient(eps_model: Any) -> None:
    guidance: Any = methods.get("surgical")(vocabulary="").build_terms(eps_model, CAT)[0]
    assert guidance.detach is True


def test_gradient_ascent_climbs_the_targets_loss_as_steeply_as_it_descends_the_rest(eps_model: Any) -> None:
    terms: list[Any] = list(methods.get("neggrad")(remain_words=2).build_terms(eps_model, CAT))
    assert [(term.role, term.sign) for term in terms] == [("erase", -1.0), ("keep", 1.0)]


@pytest.mark.parametrize(
    ("wrong", "noise"), [("label", "gaussian"), ("uniform", "gaussian"), ("uniform-noised", "uniform")]
)
def test_erasediffs_pictures_have_the_noise_that_is_learned(wrong: Any, noise: str, eps_model: Any) -> None:
    terms: list[Any] = list(EraseDiff(wrong=wrong, remain_words=2).build_terms(eps_model, CAT))
    assert [term.source.noise for term in terms] == [noise, "gaussian"]


@pytest.mark.parametrize("kind", [EAP, AGE])
@pytest.mark.parametrize(
    ("settings", "fits"),
    [
        ({"hard": False}, True),
        ({"hard": True, "source": "frozen"}, True),
        ({"hard": True, "refresh": 5, "keep_source": "frozen"}, True),
        ({"hard": False, "source": "frozen"}, False),
        ({"hard": False, "refresh": 5}, False),
        ({"hard": False, "keep_source": "frozen"}, False),
    ],
)
def test_a_mixture_of_all_words_has_no_stored_trajectory(
    kind: type[EAP | AGE], settings: dict[str, Any], fits: bool, eps_model: Any
) -> None:
    method = kind(**settings)
    if fits:
        assert len(method.build_terms(eps_model, CAT)) == 2
        method.check_mixture(method.hard)
        return
    with pytest.raises(ValueError, match="a mixture of all candidates has no stored trajectory: give hard=True"):
        method.check_mixture(method.hard)
    if kind is EAP:  # AGE mixes the `top` likeliest, on the trajectory of the first
        with pytest.raises(ValueError, match="a mixture of all candidates has no stored trajectory"):
            method.build_terms(eps_model, CAT)


@pytest.mark.parametrize(
    ("settings", "target", "kept"),
    [
        ({"source": "student"}, Student, Student),
        ({"source": "student", "refresh": 5}, Refreshed, Refreshed),
        ({"source": "frozen", "refresh": 5}, Frozen, Frozen),
        ({"source": "student", "keep_source": "frozen"}, Student, Frozen),
        ({"source": "frozen", "refresh": 5, "keep_source": "frozen"}, Frozen, Frozen),
    ],
)
def test_whose_trajectories_are_trained_on(settings: dict[str, Any], target: type, kept: type, eps_model: Any) -> None:
    method = EAP(**{"draw_steps": 7, "guidance": 2.0, "sampler": "dpm", "paths": 12, "keep_paths": 3, **settings})
    sources: list[Any] = [term.source for term in method.build_terms(eps_model, Erasure(("cat", "dog")))]  # type: ignore[attr-defined]
    assert [type(source) for source in sources] == [target, kept]
    for source, paths in zip(sources, (6, 3), strict=True):
        assert (source.steps, source.guidance, source.sampler) == (7, 2.0, "dpm")
        assert getattr(source, "paths", paths) == paths
        drawn_anew = method.refresh if source is sources[0] or method.keep_source == "same" else 0
        assert getattr(source, "refresh", drawn_anew) == drawn_anew


def test_sources_that_there_are_none_of(eps_model: Any) -> None:
    with pytest.raises(ValueError, match="no source 'stored'; there are student, frozen"):
        ESD(source="stored").build_terms(eps_model, CAT)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no source 'stored' of preserved words; there are same, frozen"):
        EAP(keep_source="stored").build_terms(eps_model, CAT)  # type: ignore[arg-type]


def test_an_attack_may_take_all_tokens_but_the_start_and_the_end(eps_model: Any) -> None:
    STEREO(attack_tokens=6).check(CAT, eps_model)
    with pytest.raises(ValueError, match="an attack of 7 tokens does not fit; tiny reads 6"):
        STEREO(attack_tokens=7).check(CAT, eps_model)


def test_what_replaces_a_target_needs_its_name(eps_model: Any) -> None:
    with pytest.raises(ValueError, match="AC replaces the target by an anchor; name one, for example --anchor"):
        AC().check(CAT, eps_model)
    AC().check(Erasure(("cat",), anchor="dog"), eps_model)


def test_a_guide_that_needs_two_predictions_is_refused_where_guidance_is_a_number() -> None:
    model = tiny_flux()
    assert not model.classifier_free
    for name in ("negative", "sld"):
        with pytest.raises(ValueError, match="reads its guidance as a number, with nothing to push away from"):
            methods.get(name)().check(CAT, model)
    model.true_guidance = 4.0
    assert model.classifier_free
    for name in ("negative", "sld"):
        methods.get(name)().check(CAT, model)


def test_options_by_name() -> None:
    given = ("pull=2.0", "hold-still=True", " words =('a', 'b')", "name=a=b", "empty=")
    wanted = {"pull": 2.0, "hold_still": True, "words": ("a", "b"), "name": "a=b", "empty": ""}
    assert parse_options(given) == wanted
    for bad in ("pull", "=2.0", " =2.0"):
        with pytest.raises(ValueError, match=f"option '{bad}' is not a setting; write NAME=VALUE"):
            parse_options([bad])


def test_an_answer_is_built_of_what_its_constructor_names() -> None:
    assert list_missing(Composition, {"source", "pull"}) == ["negatives", "anchors", "push", "space"]
    kinds: Any = {"a": Composition, "b": Anchor, "c": Denoising}
    registry: Any = SimpleNamespace(list_names=lambda: list(kinds), get=kinds.get)
    known = {"source", "space", "role"}
    assert list_offered(registry, (), known) == ["b", "c"]  # of a composition it is not known how to pull
    assert list_offered(registry, (Anchor,), known) == ["c"]
    assert list_offered(registry, (), {*known, "negatives", "anchors", "pull", "push"}) == ["a", "b", "c"]
    with pytest.raises(ValueError, match=r"negatives, anchors, push, space: give --option negatives=VALUE"):
        build_answer(OBJECTIVES, "composition", {"source": None}, {"pull": 1.0})
    parts = {"source": "ours", "eta": 1.0, "space": "eps", "model": "not named"}
    term = build_answer(OBJECTIVES, "negative-guidance", parts, {"eta": 3.0, "unknown": 1})
    assert isinstance(term, NegativeGuidance)
    assert (term.source, term.eta, term.space, term.beyond) == ("ours", 3.0, "eps", "empty")
