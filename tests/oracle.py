"""A world whose scores are known: labelled Gaussians, every prediction in closed form, and a student linear in W.

Under the weights p over the classes x0 ~ sum_k p_k N(mu_k, diag s_k^2), so at noise level ab
x_t ~ sum_k p_k N(sqrt(ab) mu_k, ab s_k^2 + 1 - ab) and E[eps | x_t] = sqrt(1 - ab) sum_k r_k (x_t - sqrt(ab) mu_k) /
(ab s_k^2 + 1 - ab) with responsibilities r; a flow's velocity follows from the same formulas. The network is this plus
W phi(x_t, t, p), phi fixed and W = 0 at the base: every squared loss on finitely many rows is a linear least-squares
problem in W.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from efface.concept import Erasure
from efface.functional.schedules import Space
from efface.methods.esd import ESD
from efface.models.base import Model
from efface.models.cond import Cond
from efface.models.flow_schedule import FlowEuler
from efface.models.schedule import read_levels
from efface.models.trajectory import Defaults, Sampler
from efface.training.balance.sum import Sum
from efface.training.interfaces import Balance, Context, GradOf, LossRole, Source, States, Step, Term, Update
from efface.training.trainer import Trainer

CLASSES = ("cat", "dog", "car", "rose")
SHAPE = (2, 1, 2)
PREDICTS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}


@final
@dataclass(frozen=True)
class World:
    """Gaussians [k, d] with diagonal spread, and how often each class occurs [k]; all in fp64."""

    means: Tensor
    spreads: Tensor
    prior: Tensor

    def compute_responsibilities(self, x: Tensor, bar: Tensor, p: Tensor) -> Tensor:
        """The probability [n, k] of each class at x [n, d], noise level bar [n], under weights p [n, k]."""
        variance = bar[:, None, None] * self.spreads**2 + (1 - bar)[:, None, None]
        far = (x[:, None] - bar.sqrt()[:, None, None] * self.means) ** 2 / variance
        log = -0.5 * (far + variance.log()).sum(dim=-1)
        log = log - log.masked_fill(p == 0, -torch.inf).max(dim=1, keepdim=True).values
        likely = p * log.clamp(max=0).exp()
        return likely / likely.sum(dim=1, keepdim=True)

    def predict_eps(self, x: Tensor, bar: Tensor, p: Tensor) -> Tensor:
        """The exact noise prediction [n, d]."""
        variance = bar[:, None, None] * self.spreads**2 + (1 - bar)[:, None, None]
        each = (x[:, None] - bar.sqrt()[:, None, None] * self.means) / variance
        r = self.compute_responsibilities(x, bar, p)
        return (1 - bar).sqrt()[:, None] * (r[..., None] * each).sum(dim=1)

    def predict_velocity(self, x: Tensor, sigma: Tensor, p: Tensor) -> Tensor:
        """The exact flow E[eps - x0 | x] [n, d] at x = (1 - sigma) x0 + sigma eps, sigma [n] in [0, 1].

        By the world's own formulas at x / r, r^2 = (1 - sigma)^2 + sigma^2, where the variance is preserved.
        """
        r = ((1 - sigma) ** 2 + sigma**2).sqrt()
        bar, x = ((1 - sigma) / r) ** 2, x / r[:, None]
        variance = bar[:, None, None] * self.spreads**2 + (1 - bar)[:, None, None]
        gain = bar.sqrt()[:, None, None] * self.spreads**2 / variance
        each = self.means + gain * (x[:, None] - bar.sqrt()[:, None, None] * self.means)
        return self.predict_eps(x, bar, p) - (self.compute_responsibilities(x, bar, p)[..., None] * each).sum(dim=1)

    def draw(self, p: Tensor, rng: torch.Generator) -> Tensor:
        """x0 [n, d], a class of each row by its weights p [n, k]."""
        k = torch.multinomial(p, 1, generator=rng)[:, 0]
        noise = torch.randn((len(p), self.means.shape[1]), generator=rng, dtype=torch.double)
        return self.means[k] + self.spreads[k] * noise


def build_world() -> World:
    means = torch.tensor([[2.0, 0, 0, 1], [-1, 2, 0, 0], [0, -2, 1.5, 0], [-1, 0, -2, -1]], dtype=torch.double)
    spreads = torch.tensor([[0.3, 0.5, 0.4, 0.4], [0.4, 0.3, 0.5, 0.4], [0.5, 0.4, 0.3, 0.3], [0.4] * 4]).double()
    return World(means, spreads, torch.tensor([0.3, 0.3, 0.2, 0.2], dtype=torch.double))


@final
class Student(nn.Module):
    """W phi, phi(x, t, p) = sqrt(2 / m) cos(A x + B p + c t / T + b): fixed random features."""

    def __init__(self, width: int, seed: int) -> None:
        nn.Module.__init__(self)
        rng = torch.Generator().manual_seed(seed)
        d = SHAPE[0] * SHAPE[1] * SHAPE[2]
        self.head = nn.Linear(width, d, bias=False)
        nn.init.zeros_(self.head.weight)
        self.a, self.b = torch.randn(d, width, generator=rng) * 0.5, torch.rand(width, generator=rng) * 6.28
        self.p, self.t = torch.randn(len(CLASSES), width, generator=rng) * 3, torch.randn(width, generator=rng) * 2

    def extract_features(self, x: Tensor, t: Tensor, p: Tensor) -> Tensor:
        """[n, width], from x [n, ...], t [n] in 0 ... 999, p [n, k]."""
        a, b, c, d = (fixed.to(x) for fixed in (self.a, self.p, self.t, self.b))
        angle = x.flatten(1) @ a + p.to(x) @ b + (t.to(x) / 1000)[:, None] * c + d
        return angle.cos() * (2 / self.a.shape[1]) ** 0.5

    def forward(self, x: Tensor, t: Tensor, p: Tensor) -> Tensor:
        return self.head(self.extract_features(x, t, p)).view(x.shape)


@final
class OracleModel(Model):
    """The world as a model: a prompt names a class, "" is all of them as often as they occur."""

    architecture: ClassVar[str] = "ddpm"
    """It knows classes and no other words, as that one does."""

    def __init__(
        self, space: Space = "eps", width: int = 24, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> None:
        self.world, self.unet = build_world(), Student(width, seed).to(dtype)
        Model.__init__(self, {"unet": self.unet})
        self.name, self.compute, self.defaults = "oracle", None, Defaults(steps=20, guidance=1.0)
        self.device, self.dtype, self.space = torch.device("cpu"), dtype, space
        self.resolution, self.latent_shape = SHAPE[2], SHAPE
        self.levels = read_levels(self.build_scheduler())

    def build_scheduler(self, sampler: Sampler = "own") -> Any:
        if self.space == "flow":
            return FlowEuler(shift=1.0)
        return DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=True,
            steps_offset=1,
            prediction_type=PREDICTS[self.space],
        )

    def _encode(self, texts: Sequence[str]) -> Cond:
        named = [self.world.prior if not text else torch.eye(4).double()[self.find_label(text)] for text in texts]
        return Cond(pooled=torch.stack(named).to(self.dtype))

    def find_label(self, text: str) -> int:
        (k,) = [i for i, name in enumerate(CLASSES) if name in text.split()]
        return k

    def _with_embedding(self, cond: Cond, embedding: Tensor) -> Cond:
        return Cond(pooled=embedding.reshape(1, 4))

    def predict_exactly(self, x: Tensor, t: Tensor, p: Tensor) -> Tensor:
        """The base's prediction [n, c, h, w] in the model's own space, in fp64."""
        flat = x.double().flatten(1)
        if self.space == "flow":
            return self.world.predict_velocity(flat, self.find_noise_level(t).sigma, p.double()).view(x.shape)
        bar = self.levels.alpha.square()[t.long()]
        eps = self.world.predict_eps(flat, bar, p.double())
        a, b = bar.sqrt()[:, None], (1 - bar).sqrt()[:, None]
        x0 = (flat - b * eps) / a
        return {"eps": eps, "v": a * eps - b * x0, "x0": x0}[self.space].view(x.shape)

    def _call_network(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        p = cond.pooled
        return self.predict_exactly(x_t, t, p).to(self.dtype) + self.unet(x_t, t, p)

    def decode(self, latents: Tensor) -> Tensor:
        pixels = ((latents[:, :1].clamp(-4, 4) / 8 + 0.5) * 255).round().to(torch.uint8)
        return pixels.expand(-1, 3, -1, -1)

    def hash_decoder(self) -> str:
        return "the first channel"

    def list_words(self, size: int) -> list[str]:
        return list(CLASSES[:size])

    def save_pretrained(self, folder: str | Path) -> None:
        raise ValueError("no other tool opens an oracle")

    def find_classes(self, latents: Tensor) -> Tensor:
        """The probability [n, k] of each class, of clean latents: exact, for the data are known."""
        n = len(latents)
        return self.world.compute_responsibilities(
            latents.double().flatten(1), torch.ones(n).double(), self.expand_prior(n).double()
        )

    def expand_prior(self, n: int) -> Tensor:
        return self.world.prior.to(self.dtype).expand(n, -1)

    def sample_states(self, n: int, seed: int = 0, prompt: str = "") -> States:
        """States of the forward process from this prompt's data, at timesteps that the loss can tell apart."""
        rng = torch.Generator().manual_seed(seed)
        x0 = self.world.draw(self.encode([prompt] * n).pooled.double(), rng)
        t = torch.randint(100, 900, (n,), generator=rng)
        level = self.levels[t]
        x_t = level.alpha[:, None] * x0 + level.sigma[:, None] * torch.randn(x0.shape, generator=rng)
        return States(x_t.to(self.dtype).view(n, *SHAPE), t)


@final
class Fixed(Source):
    """The same states every step."""

    def __init__(self, states: States) -> None:
        self.fixed = states

    def sample_states(self, context: Context, step: Step, prompts: Sequence[str], cond: Cond) -> States:
        return self.fixed


def build_trainer(
    model: Model,
    terms: Sequence[Term],
    erasure: Erasure | None = None,
    update: Update | None = None,
    balance: Balance | None = None,
    **settings: Any,
) -> Trainer:
    """A trainer of these terms; erases "cat", which becomes "dog" where a term asks for an anchor."""
    method = ESD(**{"weights": "head", "lr": 1e-2, "batch": 96, "draw_steps": 20, **settings})
    return Trainer(
        model,
        erasure or Erasure(("cat",), anchor="dog"),
        name="test",
        arguments=asdict(method),
        config=method.build_config(),
        terms=terms,
        update=update or method.build_update(),
        balance=balance or Sum(),
    )


def build_stirred(width: int = 24) -> OracleModel:
    """An oracle that has learned some error: its weights are not zero, so that a mask or a factor has a gradient."""
    model = OracleModel(width=width)
    nn.init.normal_(model.unet.head.weight, generator=torch.Generator().manual_seed(7))
    return model


def compute_grad(losses: Mapping[str, Tensor], params: Sequence[Tensor]) -> GradOf:
    """What a trainer hands to a balance, of losses that are there already."""

    def of(shares: Mapping[LossRole, float]) -> tuple[Mapping[LossRole, Tensor], Sequence[Tensor]]:
        there = {role: losses[role] for role in shares if role in losses}
        total = torch.stack([shares[role] * loss for role, loss in there.items()]).sum()
        grads = torch.autograd.grad(total, params, retain_graph=True, allow_unused=True)
        zeros = [torch.zeros_like(p) if g is None else g for p, g in zip(params, grads, strict=True)]
        return {role: loss.detach() for role, loss in there.items()}, zeros

    return of


def compute_loss_and_gradient(
    trainer: Trainer, step: Step, share: Mapping[str, float] | None = None
) -> tuple[float, list[Tensor]]:
    """The weighted sum of a step's losses by role, and its gradient for the params, as the trainer has them."""
    share = share or {}
    with trainer.compute_losses(step) as losses:
        total = torch.stack([share.get(role, 1.0) * loss for role, loss in losses.items()]).sum()
        grads = torch.autograd.grad(total, trainer.update.list_params(), allow_unused=True)
    params = trainer.update.list_params()
    return total.item(), [torch.zeros_like(p) if g is None else g for p, g in zip(params, grads, strict=True)]
