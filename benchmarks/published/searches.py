"""The formulas of attacks that follow a gradient, once more; steps are made by PyTorch's own optimisers.

The edited model is a tiny one whose cross-attention was moved at random. The noised pictures and every random choice
are the package's own, for how they are drawn is no part of a formula.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from efface.attacks.base import AttackContext
from efface.attacks.inversion import ConceptInversion
from efface.attacks.mma import MMA, Readings
from efface.attacks.p4d import P4D, Prompts
from efface.attacks.relearn import Relearn
from efface.attacks.soft_prompt import Embeddings, SoftPrompt
from efface.attacks.unlearndiff import Prefixes, UnlearnDiff
from efface.functional.tokens import draw_tokens
from efface.suites.spec import Row
from efface.training.interfaces import States

from .bench import Difference, apart, flat

LENGTH = 8
"""Tokens of the tiny model's prompts."""
PROMPTS = ("a cat", "a red cat")


@dataclass(frozen=True)
class Scene:
    """An edited model, what an attack is given of it, and its weights before and after the edit."""

    model: Any
    context: AttackContext
    rows: tuple[Row, ...]
    base: dict[str, Tensor]
    edited: dict[str, Tensor]

    def predict(self, at: States, words: Tensor, weights: dict[str, Tensor] | None = None) -> Tensor:
        """The U-Net's prediction under hidden states [n, L, d], by the edited weights or by others."""
        given = self.edited if weights is None else weights
        own = {name.removeprefix("unet."): w for name, w in given.items() if name.startswith("unet.")}
        return functional_call(self.model.unet, own, (at.x, at.t, words)).sample

    def read(self, ids: Tensor, embedded: Tensor | None = None) -> Tensor:
        """Hidden states [n, L, d] of token ids, whose embeddings may be others than the table's."""
        text = self.model.text_encoder
        if embedded is None:
            return text(ids).last_hidden_state
        handle = text.get_input_embeddings().register_forward_hook(lambda *_: embedded)
        try:
            return text(ids).last_hidden_state
        finally:
            handle.remove()

    def tokens(self, *texts: str) -> Tensor:
        how = {"padding": "max_length", "max_length": LENGTH, "truncation": True, "return_tensors": "pt"}
        return self.model.tokenizer(list(texts), **how).input_ids

    def table(self) -> Tensor:
        return self.model.text_encoder.get_input_embeddings().weight.detach()

    def word_ids(self, words: Sequence[str]) -> Tensor:
        return self.tokens(*words)[:, 1]

    def insert(self, prompts: Sequence[str], moved: Tensor) -> Tensor:
        """Hidden states of prompts before whose words stand the embeddings [n, k, d]."""
        ids, k = self.tokens(*(f"{'a ' * moved.shape[1]}{prompt}" for prompt in prompts)), moved.shape[1]
        own = self.table()[ids]
        return self.read(ids, torch.cat([own[:, :1], moved, own[:, k + 1 :]], dim=1))


@contextmanager
def scene(model: Any) -> Iterator[Scene]:
    """Within, the model is edited."""
    base = {name: w.detach().clone() for name, w in model.weights.items()}
    rng = torch.Generator().manual_seed(7)
    moved = {n: w + 0.1 * torch.randn(w.shape, generator=rng) for n, w in base.items() if "attn2" in n}
    shown = torch.randint(256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    words = ("dog", "car", "tiger", "apple", "rose", "lion", "cat")
    with model.swap_in(moved):
        context = AttackContext(model, None, "cat", lambda: model.swap_in(base), ("lion",), words, shown)
        rows = tuple(
            Row(f"row/{i}", prompt, 5 + i, "target", "erase", "object", "cat", ("cat",), "cat")
            for i, prompt in enumerate(PROMPTS)
        )
        yield Scene(model, context, rows, base, base | moved)


def compare_errors(found: tuple[Tensor, Tensor], errors: Tensor, at: Tensor) -> Difference:
    """Errors and their gradients, ours and by hand."""
    (grad,) = torch.autograd.grad(errors.sum(), [at])
    return Difference(loss=apart(found[0], errors.detach()), gradient=apart(found[1], grad))


def compare_steps(before: Tensor, ours: Tensor, by_hand: Tensor) -> Difference:
    return Difference(closed_form=apart(ours - before, by_hand - before))


def unlearndiff(model: Any) -> Difference:
    """The error of the noise under words before the prompt; a step on the simplex, projected by bisection."""
    how = UnlearnDiff(queries=2, steps=1, tokens=2, lr=0.1, decay=0.001)
    with scene(model) as s:
        ours, beside = Prefixes(how, s.context, s.rows), Prefixes(how, s.context, s.rows)
        states = beside.denoising.draw_states(300)
        chosen = torch.nn.functional.one_hot(draw_tokens(beside.points.at, beside.denoising.rngs), len(s.context.words))
        table, weights = s.table()[s.word_ids(s.context.words)], chosen.float().requires_grad_()
        moved = weights @ table
        errors = mse_rows(s.predict(states, s.insert(PROMPTS, moved)), states.known["goal"])
        (grad,) = torch.autograd.grad(errors.sum(), [weights], retain_graph=True)
        found = beside.denoising.differentiate(
            states, moved.detach(), lambda at, part: model.encode_with_grad(PROMPTS[part], at)
        )
        first = compare_errors(found, errors, moved)
        before = ours.points.at.clone()
        point = before.clone().requires_grad_()
        point.grad = grad.clamp(-1, 1) + 0.001 * before
        torch.optim.Adam([point], lr=0.1).step()
        ours._step(300)
        return first.join(compare_steps(before, ours.points.at, project(point.detach())))


def project(x: Tensor) -> Tensor:
    """max(x - theta, 0) in each row, with the theta that makes its sum 1, by bisection."""
    x = x.double()
    low, high = x.amin(-1, keepdim=True) - 1, x.amax(-1, keepdim=True)
    for _ in range(100):
        theta = (low + high) / 2
        many = (x - theta).clamp(min=0).sum(-1, keepdim=True) > 1
        low, high = torch.where(many, theta, low), torch.where(many, high, theta)
    return (x - low).clamp(min=0)


def p4d(model: Any) -> Difference:
    """The error of what the base says, at the words nearest to embeddings that AdamW moves."""
    how = P4D(queries=2, steps=1, tokens=3, lr=0.1, decay=0.1)
    with scene(model) as s:
        ours, beside = Prompts(how, s.context, s.rows), Prompts(how, s.context, s.rows)
        table = s.table()[s.word_ids(s.context.words)]
        before = ours.soft.at.clone()
        alike = np.array([[cosine(one, word) for word in table] for one in before.flatten(0, 1)])
        at = table[torch.from_numpy(alike.argmax(1))].view_as(before).requires_grad_()
        states = beside.denoising.draw_states()
        with torch.no_grad():
            goal = s.predict(states, s.read(s.tokens(*PROMPTS)), s.base)
        errors = mse_rows(s.predict(states, s.insert(["", ""], at)), goal)
        found = beside.denoising.differentiate(
            beside._predict_goal(states), at.detach(), lambda words, _: beside._encode(words, [""] * len(words))
        )
        (grad,) = torch.autograd.grad(errors.sum(), [at], retain_graph=True)
        point = before.clone().requires_grad_()
        point.grad = grad
        torch.optim.AdamW([point], lr=0.1, weight_decay=0.1).step()
        ours.advance(0)
        return compare_errors(found, errors, at).join(compare_steps(before, ours.soft.at, point.detach()))


def soft_prompt(model: Any) -> Difference:
    """The error of the noise under embeddings before the prompt, which Adam moves."""
    how = SoftPrompt(queries=2, steps=1, tokens=2, lr=0.1)
    with scene(model) as s:
        ours, beside = Embeddings(how, s.context, s.rows), Embeddings(how, s.context, s.rows)
        before = ours.soft.at.clone()
        at = before.clone().requires_grad_()
        states = beside.denoising.draw_states()
        errors = mse_rows(s.predict(states, s.insert(PROMPTS, at)), states.known["goal"])
        found = beside.denoising.differentiate(states, before, beside._encode)
        (at.grad,) = torch.autograd.grad(errors.sum(), [at], retain_graph=True)
        first = compare_errors(found, errors, at)
        torch.optim.Adam([at], lr=0.1).step()
        ours.advance(0)
        return first.join(compare_steps(before, ours.soft.at, at.detach()))


def mma(model: Any) -> Difference:
    """1 - cosine of all hidden states, the base's of the prompt and the edited encoder's of the words."""
    how = MMA(queries=1, steps=1, tokens=3, top=3, candidates=4)
    with scene(model) as s:
        ours = Readings(how, s.context, s.rows)
        at = ours.table[ours.ids].clone().requires_grad_()
        wanted = s.read(s.tokens(*PROMPTS)).detach().flatten(1)
        said = s.insert(["", ""], at).flatten(1)
        errors = 1 - (said * wanted).sum(1) / (said.norm(dim=1) * wanted.norm(dim=1))
        mine = ours.table[ours.ids].clone().requires_grad_()
        far = ours._measure_distance(mine, ours.ids, ours.wanted)
        (grad,) = torch.autograd.grad(far.sum(), [mine])
        return compare_errors((far.detach(), grad), errors, at)


def inversion(model: Any) -> Difference:
    """Two steps of AdamW on one token's embedding, by the loss of the noise under a template that holds it."""
    how = ConceptInversion(
        queries=1, steps=2, batch=2, lr=0.05, decay=0.01, start="dog", pictures=3, templates=("a {}",)
    )
    with scene(model) as s:
        ids = s.tokens("a dog").expand(2, -1)
        before = s.table()[ids[:1, 2]][None]
        word = before.clone().requires_grad_()
        adam = torch.optim.AdamW([word], lr=0.05, weight_decay=0.01)
        for step in range(2):
            choice = s.context.make_rng("inversion", step)
            states, eps = noised_pictures(s, 2, torch.Generator().manual_seed(choice.getrandbits(63)))
            own = s.table()[ids]
            embedded = torch.cat([own[:, :2], word.expand(2, -1, -1), own[:, 3:]], dim=1)
            adam.zero_grad()
            mse_rows(s.predict(states, s.read(ids, embedded)), eps).mean().backward()
            adam.step()
        return compare_steps(before, how._learn_words(s.context), word.detach())


def noised_pictures(s: Scene, n: int, rng: torch.Generator, most: int = 3) -> tuple[States, Tensor]:
    """n of the concept's pictures under noise, by diffusers' own schedule, and that noise."""
    latents = s.context.encode_pictures(most)
    x0 = latents[torch.randint(len(latents), (n,), generator=rng)]
    t = torch.randint(1000, (n,), generator=rng)
    eps = torch.randn(x0.shape, generator=rng)
    bars = s.model.pipeline.scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
    return States(bars.sqrt() * x0 + (1 - bars).sqrt() * eps, t, {}), eps


def relearn(model: Any) -> Difference:
    """Two steps of Adam on the weights of cross-attention, by the loss of the noise under the concept's name."""
    how = Relearn(queries=1, steps=2, how="dense", weights="xattn", lr=0.01, batch=3, pictures=3, templates=("a {}",))
    with scene(model) as s:
        names = [name for name in s.edited if "attn2" in name]
        own = {name: s.edited[name].clone().requires_grad_() for name in names}
        adam = torch.optim.Adam(own.values(), lr=0.01)
        for step in range(2):
            choice = s.context.make_rng("relearn", step)
            states, eps = noised_pictures(s, 3, torch.Generator().manual_seed(choice.getrandbits(63)))
            words = s.read(s.tokens("a cat")).detach().expand(3, -1, -1)
            adam.zero_grad()
            mse_rows(s.predict(states, words, s.edited | own), eps).mean().backward()
            adam.step()
        proposals = how.propose(s.context, s.rows)
        next(proposals)
        moved = flat([s.model.weights[name] for name in names])
        proposals.close()
        return compare_steps(flat([s.edited[n] for n in names]), moved, flat(list(own.values())))


def first_of(proposals: Any) -> tuple[Any, Any]:
    return next(proposals), proposals


def mse_rows(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).square().flatten(1).mean(1)


def cosine(one: Tensor, other: Tensor) -> float:
    a, b = one.double().numpy(), other.double().numpy()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
