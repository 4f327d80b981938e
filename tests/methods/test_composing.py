"""What each choice of Compose builds, of which settings, and for which requests, without a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.methods.compose import Compose
from efface.training import objectives
from efface.training.balance.constrained import Constrained
from efface.training.balance.sum import Sum
from efface.training.objectives.attacked import PrefixAttack
from efface.training.states.early import Early
from efface.training.states.pictures import Pictures
from efface.training.states.trajectories import Frozen, Student
from efface.training.updates.dense import Dense
from efface.training.updates.lowrank import LowRank
from efface.training.updates.mask import KeepWeights, Mask
from efface.training.updates.salient import Salient

CAT, BOTH = Erasure(("cat",)), Erasure(("cat", "dog"))
TO_CAR, KEEP = Erasure(("cat",), anchor="car"), Erasure(("cat",), keep=("car", "rose"))
ADVERSARIAL: dict[str, Any] = {"preserve": "adversarial", "centres": 4, "k_closest": 6}


def build(model: Any, erasure: Erasure, **settings: Any) -> Any:
    return Compose(**settings).build_terms(model, erasure)


def check_both(settings: dict[str, Any], *requests: tuple[Erasure, bool, str]) -> None:
    """Each request is taken where it fits, and refused with these words where it does not."""
    method = Compose(**settings)
    for erasure, fits, says in requests:
        if fits:
            method.check(erasure)
            continue
        with pytest.raises(ValueError, match=says):
            method.check(erasure)


@pytest.mark.parametrize(
    ("settings", "erasure", "name", "wanted"),
    [
        ({"eta": 3.0}, CAT, "NegativeGuidance", {"eta": 3.0, "beyond": "empty"}),
        ({"objective": "anchor"}, TO_CAR, "Anchor", {"states": "target", "teacher": "frozen"}),
        ({"objective": "anchor", "shows": "anchor"}, TO_CAR, "Anchor", {"states": "anchor"}),
        ({"objective": "guidance", "eta": 3.0}, CAT, "Guidance", {"goal": "negative", "eta": 3.0, "detach": True}),
        ({"objective": "guidance", "detach": False}, TO_CAR, "Guidance", {"goal": "alternative", "detach": False}),
        ({"objective": "wrong-noise", "label": "lion"}, CAT, "WrongNoise", {"labels": ("lion",), "wrong": "label"}),
        ({"objective": "wrong-noise"}, TO_CAR, "WrongNoise", {"labels": ("car",)}),
        ({"objective": "wrong-noise", "wrong": "uniform"}, CAT, "WrongNoise", {"labels": (), "wrong": "uniform"}),
        ({"objective": "denoise-up"}, CAT, "Denoising", {"sign": -1.0, "role": "erase", "shown": ()}),
        ({"objective": "gem", "eta": 3.0}, CAT, "GEM", {"eta": 3.0}),
        (
            {"objective": "attacked", "attack_steps": 2, "attack_lr": 0.3, "attack_tokens": 4, "warm_up": 5}
            | {"attack_start": "latest", "eta": 3.0},
            CAT,
            "Attacked",
            {"attack": PrefixAttack(2, 0.3, 4, 5, "latest"), "eta": 3.0},
        ),
        ({"objective": "adaptive-anchor", "eta": 3.0, **ADVERSARIAL}, CAT, "AdaptiveAnchor", {"eta": 3.0}),
    ],
)
def test_an_objective_has_the_settings_that_it_reads(
    eps_model: Any, settings: dict[str, Any], erasure: Erasure, name: str, wanted: dict[str, Any]
) -> None:
    for space in ("eps", "x0"):
        term, kept = build(eps_model, erasure, space=space, **settings)
        assert (type(term).__name__, term.role, term.space) == (name, "erase", space)
        assert {key: getattr(term, key) for key in wanted} == wanted
        assert kept.role == "keep"


@pytest.mark.parametrize(
    ("settings", "erasure", "kind", "wanted"),
    [
        ({}, CAT, Student, {}),
        ({"source": "frozen", "paths": 8}, CAT, Frozen, {"paths": 8}),
        (
            {"source": "frozen", "paths": 8},
            Erasure(("cat", "dog", "car")),
            Frozen,
            {"paths": 4},
        ),  # shared out, at least 4
        ({"source": "frozen", "paths": 16}, BOTH, Frozen, {"paths": 8}),
        ({"source": "frozen", "paths": 16, "objective": "anchor"}, Erasure(BOTH.targets, "car"), Frozen, {"paths": 8}),
        (
            {"source": "frozen", "paths": 16, "objective": "anchor", "shows": "anchor"},
            Erasure(BOTH.targets, "car"),
            Frozen,
            {"paths": 16},
        ),
        ({"states": "pictures", "pictures": 6}, BOTH, Pictures, {"drawn": 3, "noise": "gaussian"}),
        ({"objective": "denoise-up", "pictures": 6}, CAT, Pictures, {"drawn": 6, "noise": "gaussian"}),
        ({"objective": "wrong-noise", "antithetic": True}, CAT, Pictures, {"noise": "gaussian", "antithetic": True}),
        ({"objective": "wrong-noise", "wrong": "uniform"}, CAT, Pictures, {"noise": "gaussian"}),
        ({"objective": "wrong-noise", "wrong": "uniform-noised"}, CAT, Pictures, {"noise": "uniform"}),
    ],
)
def test_states_follow_from_the_objective_and_the_number_of_targets(
    eps_model: Any, settings: dict[str, Any], erasure: Erasure, kind: type, wanted: dict[str, Any]
) -> None:
    (term, _) = build(eps_model, erasure, **settings)
    assert type(term.source.source) is kind
    assert {key: getattr(term.source.source, key) for key in wanted} == wanted


def test_gem_takes_the_first_points_and_what_is_kept_with_it_takes_all(eps_model: Any) -> None:
    erase, keep = build(eps_model, CAT, objective="gem", first=3, preserve="unconditional", space="x0")
    assert type(erase.source) is Early and erase.source.first == 3
    assert keep.source is erase.source.source and keep.space == "x0"


@pytest.mark.parametrize(
    ("settings", "erasure", "name", "wanted"),
    [
        ({}, CAT, "NoPreservation", {}),
        ({"preserve": "unconditional"}, CAT, "Unconditional", {}),
        ({"preserve": "prompts", "templates": ("{}", "a {}")}, KEEP, "FixedPrompts", {}),
        (ADVERSARIAL, CAT, "Adversarial", {}),
        ({"preserve": "remain"}, KEEP, "Denoising", {"shown": ("car", "rose"), "sign": 1.0, "captions": {}}),
    ],
)
def test_a_preservation_has_the_settings_that_it_reads(
    eps_model: Any, settings: dict[str, Any], erasure: Erasure, name: str, wanted: dict[str, Any]
) -> None:
    for space in ("eps", "x0"):
        erase, term = build(eps_model, erasure, space=space, **settings)
        assert (type(term).__name__, term.role) == (name, "keep")
        assert name == "NoPreservation" or term.space == space
        assert {key: getattr(term, key) for key in wanted} == wanted
        assert name != "FixedPrompts" or term.prompts == ("car", "a car", "rose", "a rose")
        assert name in ("NoPreservation", "FixedPrompts", "Adversarial", "Denoising") or term.source is erase.source


def test_the_objective_and_the_preservation_search_by_the_same_settings(eps_model: Any) -> None:
    how: dict[str, Any] = {**ADVERSARIAL, "hard": False, "top": 3, "temperature": 0.7, "search_lr": 0.2}
    erase, keep = build(eps_model, CAT, objective="adaptive-anchor", **how)
    assert erase.search is keep.search
    found = keep.search.config
    assert (found.hard, found.top, found.temperature, found.lr) == (False, 3, 0.7, 0.2)
    assert found.gradient == "straight-through"
    _, scored = build(eps_model, CAT, search_gradient="score", **ADVERSARIAL)
    assert scored.search.config.gradient == "score" and scored.search.config.hard


def test_an_update_has_the_settings_that_it_reads() -> None:
    how: dict[str, Any] = {"weights": "xattn", "lr": 0.25}
    dense, low = (
        Compose(update_=name, **how, **more).build_update() for name, more in (("dense", {}), ("low-rank", {"rank": 3}))
    )
    assert type(dense) is Dense and (dense.selection, dense.lr, dense.detach_start) == ("xattn", 0.25, False)
    assert type(low) is LowRank and (low.selection, low.lr, low.rank, low.start) == ("xattn", 0.25, 3, "normal")
    given: dict[str, Any] = {"relaxation": "hard-concrete", "tau": 0.5, "start": 2.0, "sparsity": 0.1, "fill": 0.2}
    mask: Any = Compose(update_="mask", **how, **given).build_update()
    assert type(mask) is Mask and (mask.selection, mask.lr) == ("xattn", 0.25)
    assert {key: getattr(mask, key) for key in given} == given
    salient: Any = Compose(update_="salient", **how, share=0.3, looks=7).build_update()
    assert type(salient) is Salient and (salient.dense.selection, salient.dense.lr) == ("xattn", 0.25)
    assert (salient.share, salient.looks, salient.saliency) == (0.3, 7, None)


def test_a_mask_alone_has_a_cost_and_must_prune(eps_model: Any) -> None:
    kept = Compose(update_="mask", lr=0.5, beta=0.3)
    (_, _, cost) = kept.build_terms(eps_model, CAT)
    assert type(cost) is KeepWeights and cost.beta == 0.3
    empty = Edit({}, {})
    with pytest.raises(ValueError, match=r"nothing was pruned: in 1000 steps of 0\.5 .* beta 0\.3"):
        kept.finish(empty, CAT)
    assert Compose().finish(empty, CAT) is empty
    pruned = Edit({"unet.head.weight:mask": torch.ones(1, dtype=torch.uint8)}, {})
    assert kept.finish(pruned, CAT) is pruned


def test_a_balance_has_the_settings_that_it_reads() -> None:
    assert Compose(preserve="unconditional", keep_weight=0.2).build_balance() == Sum(keep=0.2)
    given: Any = {"preserve": "unconditional", "balance_": "constrained", "rate": "gap", "rate_eta": 0.2, "inner": 3}
    assert Compose(**given).build_balance() == Constrained("gap", 0.2, 3)


ANCHORS = [
    # Settings, whether an anchor may be given, and whether it must.
    ({}, False, False),
    ({"objective": "anchor"}, True, True),
    ({"objective": "guidance"}, True, False),
    ({"objective": "guidance", "goal": "alternative"}, True, True),
    ({"objective": "guidance", "goal": "neutral"}, False, False),
    ({"objective": "guidance", "goal": "negative"}, False, False),
    ({"objective": "wrong-noise"}, True, False),
    ({"objective": "wrong-noise", "wrong": "uniform"}, False, False),
    ({"objective": "denoise-up"}, False, False),
    ({"objective": "gem"}, True, False),
    ({"objective": "attacked"}, False, False),
    ({"objective": "adaptive-anchor", **ADVERSARIAL}, False, False),
]


@pytest.mark.parametrize(("settings", "may", "must"), ANCHORS)
def test_an_anchor_is_refused_where_nothing_reads_it_and_demanded_where_something_needs_it(
    settings: dict[str, Any], may: bool, must: bool
) -> None:
    check_both(settings, (TO_CAR, may, "no use for an anchor"), (CAT, not must, "by an anchor; name one"))


@pytest.mark.parametrize(
    ("settings", "may", "must"),
    [
        ({}, False, False),
        ({"preserve": "unconditional"}, False, False),
        ({"preserve": "prompts"}, True, True),
        (ADVERSARIAL, True, False),
        ({"preserve": "remain"}, True, False),
    ],
)
def test_concepts_to_keep_are_refused_where_nothing_reads_them(settings: dict[str, Any], may: bool, must: bool) -> None:
    check_both(settings, (KEEP, may, "no use for concepts to keep"), (CAT, not must, "name at least one"))


@pytest.mark.parametrize(
    ("settings", "erasure", "relies"),
    [
        ({}, CAT, True),
        ({"objective": "guidance"}, CAT, True),
        ({"objective": "attacked"}, CAT, True),
        ({"objective": "gem"}, CAT, True),
        ({"objective": "gem"}, TO_CAR, False),
        ({"objective": "anchor"}, TO_CAR, False),
        ({"objective": "denoise-up"}, CAT, False),
        ({"objective": "wrong-noise"}, CAT, False),
        ({"objective": "denoise-up", "preserve": "unconditional"}, CAT, True),
        ({"objective": "gem", "preserve": "unconditional"}, TO_CAR, True),
    ],
)
def test_whether_the_empty_prompt_is_relied_on(settings: dict[str, Any], erasure: Erasure, relies: bool) -> None:
    assert Compose(**settings).relies_on_uncond(erasure) is relies


def test_a_search_alone_checks_its_mixture_and_a_mask_alone_its_reach() -> None:
    mixed: dict[str, Any] = {"hard": False, **ADVERSARIAL}
    assert Compose(**mixed).top == 0 and Compose(**mixed, source="frozen", top=1).top == 1
    with pytest.raises(ValueError, match="a mixture of all candidates has no stored trajectory"):
        Compose(**mixed, source="frozen")
    assert Compose(source="frozen", lr=1e-5).lr == 1e-5  # a mask of this lr would prune nothing
    with pytest.raises(ValueError, match="nothing would be pruned"):
        Compose(update_="mask", lr=1e-5)


OWN = '''"""{name}: an objective of its own. An example, no paper's."""

from typing import final

from efface.training.interfaces import Term


@final
class {name}(Term):
    """Predicts nothing."""

    role = "erase"

    def __init__(self, {arguments}) -> None:
        self.given = {{each: value for each, value in locals().items() if each != "self"}}

    def build_queries(self, context, step):
        return None

    def compute_loss(self, context, queries, predictions):
        raise AssertionError
'''


def test_an_answer_of_the_catalogue_reads_the_settings_that_its_constructor_names(
    eps_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, arguments in (("Placed", "source, selection, eta, pull"), ("Alone", "erasure, label='x'")):
        (tmp_path / f"{name.lower()}.py").write_text(OWN.format(name=name, arguments=arguments), encoding="utf-8")
    monkeypatch.setattr(objectives, "__path__", [*objectives.__path__, str(tmp_path)])
    how: dict[str, Any] = {"objective": "placed", "option": ("pull=2.0",), "eta": 3.0, "weights": "xattn"}
    for place in ({"states": "pictures", "pictures": 3}, {"source": "frozen", "paths": 2}):
        term, _ = build(eps_model, CAT, **how, **place)
        assert [term.given[key] for key in ("selection", "eta", "pull")] == ["xattn", 3.0, 2.0]
        assert type(term.given["source"].source) is (Pictures if "states" in place else Frozen)
    with pytest.raises(ValueError, match="no use for label='lion' with objective placed"):
        Compose(**how, label="lion")
    with pytest.raises(ValueError, match=r"no objective 'placed'; there are negative-guidance.*, alone"):
        Compose(objective="placed")  # nobody says how far to pull
    alone, _ = build(eps_model, CAT, objective="alone", label="lion")
    assert alone.given == {"erasure": CAT, "label": "lion"}
    for idle in ({"states": "pictures"}, {"eta": 2.0}):
        with pytest.raises(ValueError, match=f"no use for {next(iter(idle))}=.* with objective alone"):
            Compose(objective="alone", **idle)
    with pytest.raises(ValueError, match=r"no states 'dreams'; there are trajectories, pictures$"):
        Compose(states="dreams")  # type: ignore[arg-type]
