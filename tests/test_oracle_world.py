"""The world whose scores are known: its predictions, its flow and its drawings are those of its density."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from oracle import OracleModel, build_world


@pytest.mark.parametrize("t", [1, 300, 700, 999])
def test_its_predictions_are_the_gradient_of_the_log_density(t):
    """eps = -sqrt(1 - ab) grad log p_t(x), by autograd through torch's own distributions."""
    model, w = OracleModel(), build_world()
    bar = model.levels.alpha.square()[t]
    x = torch.randn(20, 4, dtype=torch.double, generator=torch.Generator().manual_seed(t), requires_grad=True)
    each = Independent(Normal(bar.sqrt() * w.means, (bar * w.spreads**2 + 1 - bar).sqrt()), 1)
    for p in (w.prior, torch.tensor([0.0, 1, 0, 0]).double(), torch.tensor([0.5, 0, 0, 0.5]).double()):
        (score,) = torch.autograd.grad(MixtureSameFamily(Categorical(logits=p.log()), each).log_prob(x).sum(), x)
        eps = w.predict_eps(x.detach(), bar.expand(20), p.expand(20, 4))
        assert torch.allclose(eps, -(1 - bar).sqrt() * score, atol=1e-9)


@pytest.mark.parametrize("sigma", [1e-3, 0.2, 0.7, 1.0])
def test_its_flow_carries_the_density(sigma):
    """u = -(x + sigma grad log p(x)) / (1 - sigma), by autograd; at pure noise eps less the mean of the data."""
    w = build_world()
    x = torch.randn(20, 4, dtype=torch.double, generator=torch.Generator().manual_seed(1), requires_grad=True)
    each = Independent(Normal((1 - sigma) * w.means, ((1 - sigma) ** 2 * w.spreads**2 + sigma**2).sqrt()), 1)
    for p in (w.prior, torch.tensor([0.0, 1, 0, 0]).double(), torch.tensor([0.5, 0, 0, 0.5]).double()):
        (score,) = torch.autograd.grad(MixtureSameFamily(Categorical(logits=p.log()), each).log_prob(x).sum(), x)
        u = w.predict_velocity(x.detach(), torch.full((20,), sigma, dtype=torch.double), p.expand(20, 4))
        wanted = x - p @ w.means if sigma == 1 else -(x + sigma * score) / (1 - sigma)
        assert torch.allclose(u, wanted.detach(), atol=1e-9)


@pytest.mark.parametrize("space", ["eps", "v", "x0", "flow"])
def test_it_draws_what_it_says(space):
    model = OracleModel(space)
    n = 400
    for prompt in ("cat", ""):
        cond = model.encode([prompt])
        x = model.sample(cond, model.encode([""]), range(n), steps=40, guidance=1.0).x
        occurs = model.find_classes(x).mean(dim=0)
        assert torch.allclose(occurs.float(), cond.pooled[0], atol=0.08 if not prompt else 1e-3)
    x = model.sample(model.encode(["cat"]), model.encode([""]), range(n), steps=40, guidance=1.0).x.flatten(1)
    assert torch.allclose(x.mean(dim=0).double(), model.world.means[0], atol=0.1)
    assert torch.allclose(x.std(dim=0).double(), model.world.spreads[0], atol=0.1)
