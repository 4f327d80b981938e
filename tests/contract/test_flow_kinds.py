"""What every method owes on every flow that it serves, and a sentence where it can't serve one."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from efface import methods
from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.methods.configure import build_method
from efface.models.base import Model
from export_table import describe, read_page
from tiny_fits import FLOWS, build_quick, build_request, list_served, shorten_settings
from tiny_flux import tiny_flux

DISTILLED = [(kind, name) for kind in ("flux", "flux2") for name in ("negative", "sld")]
"""Guides that need two predictions, where guidance is a number."""
EXPORTS = read_page()
PAIRS = [(kind, name) for kind in FLOWS for name in list_served(kind) if (kind, name) not in DISTILLED]


@cache
def open_kind(kind: str) -> tuple[Model, dict[str, Tensor], dict[str, Tensor]]:
    """A model that all methods share, its weights, and copies of these."""
    model = FLOWS[kind]()
    weights = dict(model.weights)
    return model, weights, {name: tensor.detach().clone() for name, tensor in weights.items()}


def draw_latents(model: Model, edit: Edit | None = None) -> Tensor:
    """Latents, in which a small edit shows."""
    if edit is not None:
        with edit.apply(model):
            return draw_latents(model)
    return model.sample(model.encode(["a cat", "a dog"]), model.encode([""]), [1, 2], steps=2, guidance=3.0).x


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_it_fits_and_leaves_the_model_as_it_was(kind: str, name: str) -> None:
    model, weights, copies = open_kind(kind)
    edit = build_quick(name, model, steps=1, batch=2, search_turns=0).fit(model, build_request(name))
    now = model.weights
    assert all(now[key] is tensor and torch.equal(tensor, copies[key]) for key, tensor in weights.items())
    assert all(value.isfinite().all() for value in edit.values.values())
    changed = (draw_latents(model, edit) - draw_latents(model)).abs().max()
    # A mask prunes what its logits say, which one step does not reach; fixed shares are pruned at once.
    assert changed > 0 and (edit.names or edit.meta.get("guide"))
    assert describe(model, edit) == EXPORTS[name, kind]


@pytest.mark.parametrize(("kind", "name"), DISTILLED)
def test_guides_need_a_guidance_to_act_on(kind: str, name: str) -> None:
    model: Any = FLOWS[kind]()
    with pytest.raises(ValueError, match=r"reads its guidance as a number.*set model.true_guidance above 1"):
        build_quick(name, model).fit(model, build_request(name))
    model.true_guidance = 2.0
    edit = build_quick(name, model).fit(model, build_request(name))
    assert not torch.equal(draw_latents(model, edit), draw_latents(model))
    assert describe(model, edit) == EXPORTS[name, kind]


SCHNELL = {name: methods.get(name).needs_uncond for name in list_served("flux")}


@pytest.mark.parametrize("name", [name for name in SCHNELL if name not in ("compose", "finetune")])
def test_a_distilled_model_is_trained_where_no_unconditional_prediction_is_needed(name: str) -> None:
    model = tiny_flux(dev=False)
    erasure = Erasure(("cat",), anchor="dog" if methods.get(name).uses_anchor else "")
    method = build_method(name, model, {**shorten_settings(name, steps=1, search_turns=0), **shorten_settings(name)})
    if SCHNELL[name]:
        with pytest.raises(ValueError, match="has none: its guidance was distilled away"):
            method.fit(model, erasure)
    else:
        assert method.fit(model, erasure).values


def test_a_distilled_model_is_not_drawn_with_guidance(monkeypatch: Any) -> None:
    model = tiny_flux(dev=False)
    monkeypatch.setattr(model, "encode", lambda *_: pytest.fail("work began"))
    with pytest.raises(ValueError, match="draws without guidance, so AC must too: give guidance 1"):
        build_quick("ac").fit(model, Erasure(("cat",), anchor="dog"))
    assert build_method("ac", model, {}).guidance == 1.0  # type: ignore[attr-defined]
    for objective, preserve in (("negative-guidance", "nothing"), ("anchor", "unconditional"), ("gem", "nothing")):
        mix = build_method("compose", model, {"objective": objective, "preserve": preserve})
        anchor = "dog" if objective == "anchor" else ""
        with pytest.raises(ValueError, match="Compose moves a prediction relative to the unconditional one"):
            mix.fit(model, Erasure(("cat",), anchor=anchor))


@pytest.mark.parametrize("kind", FLOWS)
def test_eap_chooses_words_whole_and_meets_them_where_the_student_is(kind: str) -> None:
    """A candidate's tokens, mask and pooled embedding are one word's; its states are the student's under that word."""
    model = open_kind(kind)[0]
    method = build_quick("eap", model, steps=1, batch=2, source="student", keep_source="same", guidance=1.0)
    trainer = method.build_trainer(model, Erasure(("cat",)))  # type: ignore[attr-defined]
    term: Any = trainer.terms[1]
    step = trainer.make_auxiliary_step(0, 0)
    pick = term.search.select(trainer.context, step)
    for i, word in enumerate(pick.words):
        own = model.encode([word])
        assert word != "cat"
        for part, tensor in own.tensors.items():
            assert torch.allclose(pick.cond.tensors[part][i].float(), tensor[0].float(), atol=1e-5), part
    states = term.build_queries(trainer.context, step)["student"].states
    how = {"steps": method.draw_steps, "guidance": 1.0, "sampler": "ddim"}  # type: ignore[attr-defined]
    with trainer.update.swapped_in():
        for i, point in enumerate(step.points):
            cond = pick.cond.detach()[[i]]
            drawn = model.sample(cond, trainer.context.uncond, [step.noise[i]], until=point, **how).x
            assert torch.allclose(states.x[i], drawn[0], atol=1e-4)
    weight = trainer.context.weigh_loss(states.t, term.space)
    assert term.space == "x0" and torch.allclose(weight, (states.t / 1000).square().to(weight), atol=1e-6)


@pytest.mark.parametrize(("name", "space"), [("esd", "flow"), ("eap", "x0"), ("ac", "flow")])
def test_errors_are_measured_as_velocities_unless_a_method_says_otherwise(name: str, space: str) -> None:
    model = open_kind("sd3")[0]
    assert build_method(name, model, {}).space == space  # type: ignore[attr-defined]
    assert build_method(name, model, {"space": "eps"}).space == "eps"  # type: ignore[attr-defined]
