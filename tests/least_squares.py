"""What linear algebra says of a training on the oracle, with every state held fixed.

The loss is sum_i w_i |W psi_i - r_i|^2. An answer of the student's own that carries no gradient lies in psi but not in
phi: the gradient is sum_i w_i (W psi_i - r_i) phi_i^T.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from efface.functional.schedules import Space
from efface.training.interfaces import States
from oracle import CLASSES, OracleModel

N = 96


@dataclass(frozen=True)
class Equations:
    """One term's rows: what moves with a gradient, what moves at all, what is wanted of it, and how much it counts."""

    phi: Tensor
    psi: Tensor
    r: Tensor
    weight: Tensor

    @staticmethod
    def of(weight: Tensor, phi: Tensor, r: Tensor, psi: Tensor | None = None) -> Equations:
        return Equations(phi.double(), (phi if psi is None else psi).double(), r.double().flatten(1), weight.double())


def find_minimiser(parts: list[Equations]) -> Tensor:
    """W [d, m] by torch.linalg.lstsq, where everything that moves has its gradient."""
    a = torch.cat([p.weight.sqrt()[:, None] * p.psi for p in parts])
    b = torch.cat([p.weight.sqrt()[:, None] * p.r for p in parts])
    assert all(torch.equal(p.phi, p.psi) for p in parts)
    return torch.linalg.lstsq(a, b, driver="gelsd").solution.T


def find_fixed_point(parts: list[Equations]) -> Tensor:
    """W [d, m] where the gradients that are there add up to zero."""
    a = torch.stack([(p.phi * p.weight[:, None]).T @ p.psi for p in parts]).sum(dim=0)
    b = torch.stack([(p.phi * p.weight[:, None]).T @ p.r for p in parts]).sum(dim=0)
    return torch.linalg.lstsq(a, b, driver="gelsd").solution.T


@dataclass(frozen=True)
class Lab:
    """A model, states, and the closed forms at them."""

    model: OracleModel
    at: States
    space: Space

    def phi(self, p: Tensor, at: States | None = None) -> Tensor:
        at = at or self.at
        return self.model.unet.extract_features(at.x, at.t, p)

    def base(self, p: Tensor, at: States | None = None) -> Tensor:
        at = at or self.at
        return self.model.predict_exactly(at.x, at.t, p)

    def p(self, prompt: str) -> Tensor:
        return torch.eye(4)[CLASSES.index(prompt)].expand(N, 4) if prompt else self.model.expand_prior(N)

    def weight(self, at: States | None = None) -> Tensor:
        """How a squared error in the model's own space grows in the loss': squared slopes, by hand."""
        level = self.model.levels[(at or self.at).t]
        alpha, sigma = level.alpha, level.sigma
        slope = {"eps": sigma / alpha, "v": sigma / (alpha**2 + sigma**2), "x0": torch.ones_like(alpha), "flow": sigma}
        return (slope[self.model.space] / slope[self.space]) ** 2

    def towards(self, p: Tensor, goal: Tensor, at: States | None = None) -> Equations:
        """The student's prediction under p is to be `goal`."""
        return Equations.of(self.weight(at), self.phi(p, at), goal - self.base(p, at))
