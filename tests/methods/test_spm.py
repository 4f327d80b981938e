"""SPM: what the words that anchor are, what they cost, and the edit with and without its gate."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace

import pytest
import torch

from efface.concept import Erasure
from efface.methods.spm import SPM
from efface.models.adapters.sd import StableDiffusion
from efface.training.trainer import Trainer

QUICK = SPM(steps=3, batch=2, draw_steps=3, paths=2, lr=1e-3, source="frozen")


def build_trainer(model: StableDiffusion, method: SPM = QUICK, targets: tuple[str, ...] = ("cat",)) -> Trainer:
    erasure = Erasure(targets)
    parts = {
        "terms": method.build_terms(model, erasure),
        "update": method.build_update(),
        "balance": method.build_balance(),
    }
    return Trainer(model, erasure, name="test", arguments=asdict(method), config=method.build_config(), **parts)


def test_words_are_rarer_the_more_they_are_like_the_target(eps_model):
    trainer = build_trainer(eps_model, replace(QUICK, anchors=2000), ("cat", "dog"))
    term = trainer.terms[1]
    assert "cat" not in term.words
    assert "dog" not in term.words
    step = replace(trainer.make_auxiliary_step(0, 1), targets=[0, 1], templates=[0, 0])
    for row, target in enumerate(("cat", "dog")):
        own = eps_model.encode([target]).tokens.flatten()
        rows = [eps_model.encode([word]).tokens.flatten() for word in term.words]
        apart = torch.tensor([1 - float(own @ w / own.norm() / w.norm()) for w in rows]).clamp(min=0)
        count = Counter(term.draw(step)[row])
        share = torch.tensor([count[word] / 2000 for word in term.words])
        assert (share - apart / apart.sum()).abs().max() < 0.04


def test_anchoring_costs_nothing_at_the_base_and_asks_at_the_objectives_states(model):
    trainer = build_trainer(model)
    step = trainer.make_auxiliary_step(0, 0)
    erase, keep = (term.build_queries(trainer.context, step) for term in trainer.terms)
    n = QUICK.batch * QUICK.anchors
    assert torch.equal(keep["student"].states.x, erase["student"].states.x.repeat_interleave(QUICK.anchors, 0))
    assert len(keep["student"].cond) == n
    assert keep["eps_s"].cond is keep["student"].cond
    with trainer.compute_losses(step) as losses:
        assert losses["keep"].item() == pytest.approx(0, abs=1e-9)
        assert losses["erase"].item() > 0


def test_scales(eps_model):
    trainer = build_trainer(eps_model)
    query = trainer.terms[1].build_queries(trainer.context, trainer.make_auxiliary_step(0, 0))["student"]
    table = eps_model.encode(trainer.terms[1].words).tokens.flatten(1)
    for row in query.cond.tokens.flatten(1):
        scales = (table @ row) / table.square().sum(1)
        fits = [(s * w - row).abs().max() < 1e-4 and 0.8 <= s <= 1.2 for s, w in zip(scales, table, strict=True)]
        assert any(fits)


def test_with_and_without_the_gate(eps_model):
    erasure = Erasure(("cat",))
    plain, gate = (replace(QUICK, gate=on, lr=1e-2).fit(eps_model, erasure) for on in (False, True))
    matrices = [n for n, w in eps_model.weights.items() if ".attentions." in n and w.dim() >= 2]
    assert set(plain.names) == set(matrices)
    assert all(plain.values[f"{name}:down"].shape[0] == 1 for name in matrices)
    assert "guide" not in plain.meta
    assert gate.meta["guide"]["arguments"] == {"concepts": ["cat"], "layers": list(plain.names), "rank": 1, "power": 1}
    squared = replace(QUICK, transport="release").fit(eps_model, erasure)
    assert squared.meta["guide"]["arguments"]["power"] == 2
    with pytest.raises(ValueError, match=r"no transport 'code'; there are paper \(gamma\), release"):
        replace(QUICK, transport="code")
    assert gate.meta["guide"]["name"] == "gate"
    for kind in ("down", "up"):
        assert torch.equal(
            gate.values[f"guide/{kind}"], torch.cat([plain.values[f"{n}:{kind}"].flatten() for n in plain.names])
        )
    drawn = []
    for edit in (plain, gate):
        with edit.apply(eps_model, 10.0):
            drawn.append(eps_model.images(["a cat"], [1]).int())
    assert (drawn[0] - drawn[1]).abs().max() <= 1
    assert (drawn[0] - eps_model.images(["a cat"], [1]).int()).abs().max() > 1


def test_bad_settings(eps_model, monkeypatch):
    with pytest.raises(ValueError, match="no word to hold in place is left of 0"):
        replace(QUICK, anchor_words=0).fit(eps_model, Erasure(("cat",)))
    with pytest.raises(ValueError, match="at least 1 anchoring word a row, got 0"):
        replace(QUICK, anchors=0).fit(eps_model, Erasure(("cat",)))
    monkeypatch.setattr(eps_model, "encode", lambda *_: pytest.fail("work began"))
    with pytest.raises(ValueError, match="the gate weighs layers of the denoiser, 'text_encoder"):
        replace(QUICK, weights=r"text_encoder\..*").fit(eps_model, Erasure(("cat",)))
