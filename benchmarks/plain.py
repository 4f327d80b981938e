"""The baseline of `updates`: the papers' procedures without optimisation, with a draw for every update and batch 1.

`esd` and `eap` are the papers' procedures (Gandikota et al., arXiv 2303.07345; Bui et al., arXiv 2410.15618): for every
update the student draws half of a new guided trajectory, one picture at a time, a deep copy of the whole model is the
teacher, and every prediction is a call of its own. `abo`, `p_esd` and `erasediff` are our own unoptimised references,
because the papers' code is not published or trains on other pictures. They use the same procedure with their loss;
EraseDiff has its inner step on a copy of the network, and pictures that are drawn one by one.

Drawing, network, precision and kernels are those of the toolkit, so that only the algorithm differs. States are scored
exactly at their timestep, as in the second release of ESD.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam

from efface.functional.gumbel import gumbel_softmax
from efface.functional.losses import negative_guidance, weighted_mse
from efface.functional.masks import straight_through
from efface.functional.schedules import add_noise, convert, space_weight
from efface.models.base import Model
from efface.models.cond import Cond
from efface.training.subsets import select


@dataclass(frozen=True)
class Asked:
    """Holds the request of one erasure."""

    target: str
    """What is erased."""
    templates: Sequence[str]
    """Prompts around it, one at random for each update."""
    settings: Mapping[str, Any]
    """The method's arguments."""
    updates: int
    seed: int = 0
    more: Mapping[str, Any] = field(default_factory=dict)
    """What some of the procedures take beside: candidates, captions, a label."""


class Pair:
    """Holds a model and a deep copy of it: the copy is trained, and the model is the teacher."""

    def __init__(self, model: Any, asked: Asked) -> None:
        self.teacher, self.asked = model, asked
        self.student: Any = type(model)(
            copy.deepcopy(model.pipeline), model.name, defaults=model.defaults, compute=model.compute
        )
        self.rng = torch.Generator().manual_seed(asked.seed)
        self.uncond = model.encode([""])
        self.names = select(self.student.weights, asked.settings["weights"])

    def list_masters(self) -> list[Tensor]:
        """The student's own tensors of the trained subset."""
        for tensor in self.student.weights.values():
            tensor.requires_grad_(False)
        return [self.student.weights[name].requires_grad_() for name in self.names]

    def draw_number(self, bound: int) -> int:
        return int(torch.randint(bound, (), generator=self.rng))

    def draw_prompt(self) -> str:
        """Puts the target into a template."""
        return self.asked.templates[self.draw_number(len(self.asked.templates))].format(self.asked.target)

    def draw_state(self, cond: Cond, point: int, seed: int) -> tuple[Tensor, Tensor]:
        """The student's state at a step of a new guided trajectory, and its timestep."""
        how = self.asked.settings
        draw = self.student.sample(
            cond.detach(),
            self.uncond,
            [seed],
            steps=how["draw_steps"],
            guidance=how["guidance"],
            until=point,
            sampler="ddim",
        )
        t = self.student.list_timesteps(how["draw_steps"], "ddim").to(self.student.device)[[point]]
        return draw.x, t

    def place(self) -> tuple[int, int]:
        """Chooses how far to draw, and from which start noise."""
        return self.draw_number(self.asked.settings["draw_steps"]), self.draw_number(2**31)

    def weigh_error(self, t: Tensor) -> Tensor:
        return space_weight(self.teacher.find_noise_level(t), self.teacher.space, self.asked.settings["space"])


@torch.no_grad()
def predict_frozen(model: Model, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """Computes the frozen model's prediction."""
    return model.predict(x, t, cond)[0]


def esd(model: Model, asked: Asked) -> dict[str, Tensor]:
    """Runs the paper's ESD, and returns the new values of the trained subset."""
    pair = Pair(model, asked)
    masters = pair.list_masters()
    adam = Adam(masters, lr=asked.settings["lr"])
    for _ in range(asked.updates):
        cond = model.encode([pair.draw_prompt()])
        x, t = pair.draw_state(cond, *pair.place())
        eps_0, eps_c = predict_frozen(model, x, t, pair.uncond), predict_frozen(model, x, t, cond)
        loss = weighted_mse(
            pair.student.predict(x, t, cond)[0],
            negative_guidance(eps_0, eps_c, asked.settings["eta"]),
            pair.weigh_error(t),
        )
        _step(adam, loss)
    return _copy_values(pair.names, masters)


def eap(model: Model, asked: Asked, candidates: Sequence[str]) -> dict[str, Tensor]:
    """Runs the paper's EAP, which searches among these words."""
    pair, how = Pair(model, asked), asked.settings
    masters = pair.list_masters()
    logits = torch.full((len(candidates),), 1.0 / len(candidates), device=model.device, requires_grad=True)
    adam, search = Adam(masters, lr=how["lr"]), Adam([logits], lr=how["search_lr"], maximize=True)
    tables = {form: model.encode([form.format(word) for word in candidates]) for form in asked.templates}
    for i in range(asked.updates * (1 + how["search_turns"])):
        form = asked.templates[pair.draw_number(len(asked.templates))]
        cond = model.encode([form.format(asked.target)])
        other = tables[form].mix(gumbel_softmax(logits, how["temperature"], how["hard"], pair.rng)[None])
        place = pair.place()
        (x, t), (y, _) = pair.draw_state(cond, *place), pair.draw_state(other, *place)
        eps_0, eps_c = predict_frozen(model, x, t, pair.uncond), predict_frozen(model, x, t, cond)
        held = predict_frozen(model, y, t, other.detach())
        erased = pair.student.predict(x, t, cond)[0]
        kept = weighted_mse(pair.student.predict(y, t, other)[0], held, pair.weigh_error(t))
        if i % (1 + how["search_turns"]) == 0:
            goal = negative_guidance(eps_0, eps_c, how["eta"])
            _step(adam, weighted_mse(erased, goal, pair.weigh_error(t)) + how["keep_weight"] * kept)
        else:
            _step(search, kept)
        logits.grad = None
    return _copy_values(pair.names, masters)


def abo(model: Model, asked: Asked) -> dict[str, Tensor]:
    """Runs our unoptimised reference of All but One without an alternative."""
    pair, how = Pair(model, asked), asked.settings
    masters = pair.list_masters()
    adam = Adam(masters, lr=how["lr"])
    for _ in range(asked.updates):
        cond = model.encode([pair.draw_prompt()])
        x, t = pair.draw_state(cond, *pair.place())
        eps_0, eps_c = predict_frozen(model, x, t, pair.uncond), predict_frozen(model, x, t, cond)
        student_c, student_0 = pair.student.predict(x, t, cond)[0], pair.student.predict(x, t, pair.uncond)[0]
        apart = student_c - (student_0.detach() if how["detach"] else student_0)
        erase = weighted_mse(apart, -how["eta"] * (eps_c - eps_0), pair.weigh_error(t))
        _step(adam, erase + how["hold"] * weighted_mse(student_0, eps_0, pair.weigh_error(t)))
    return _copy_values(pair.names, masters)


def p_esd(model: Model, asked: Asked) -> dict[str, Tensor]:
    """Runs our unoptimised reference of P-ESD: the student draws and learns under the current mask."""
    pair, how = Pair(model, asked), asked.settings
    base = {name: tensor.detach() for name, tensor in model.weights.items()}
    names = [name for name in pair.names if base[name].dim() >= 2]
    logits = [torch.full_like(base[name], how["start"], dtype=torch.float32).requires_grad_() for name in names]
    adam = Adam(logits, lr=how["lr"])
    for _ in range(asked.updates):
        cond = model.encode([pair.draw_prompt()])
        masked = {n: base[n] * straight_through(s, how["tau"]) for n, s in zip(names, logits, strict=True)}
        with pair.student.swap_in(masked):
            x, t = pair.draw_state(cond, *pair.place())
            eps_0, eps_c = predict_frozen(model, x, t, pair.uncond), predict_frozen(model, x, t, cond)
            goal = negative_guidance(eps_0, eps_c, how["eta"])
            loss = weighted_mse(pair.student.predict(x, t, cond)[0], goal, pair.weigh_error(t))
            kept = sum(torch.sigmoid(s / how["tau"]).sum() for s in logits) / sum(s.numel() for s in logits)
            _step(adam, loss + how["beta"] * (1 - kept))
    return {n: base[n] * (s.detach() > 0) for n, s in zip(names, logits, strict=True)}


def erasediff(model: Model, asked: Asked, captions: Sequence[str], label: str, inner: int = 1) -> dict[str, Tensor]:
    """Runs our unoptimised reference of EraseDiff, with pictures one by one, an inner step on a copy, and three passes
    an update."""
    pair, how = Pair(model, asked), asked.settings
    masters, n = pair.list_masters(), how["pictures"]
    forget = [
        (p := asked.templates[i % len(asked.templates)].format(asked.target), _draw_picture(pair, p)) for i in range(n)
    ]
    remain = [(p := captions[i % len(captions)], _draw_picture(pair, p)) for i in range(n)]
    adam = Adam(masters, lr=how["lr"])
    for _ in range(asked.updates):
        _descend_copy(pair, _draw_batch(pair, forget, how["batch"]), label, inner)
        wrong = torch.autograd.grad(
            _compute_wrong(pair, pair.student, _draw_batch(pair, forget, how["batch"]), label), masters
        )
        right = torch.autograd.grad(_compute_right(pair, _draw_batch(pair, remain, how["batch"])), masters)
        square = sum(g.square().sum() for g in wrong)
        along = sum((g * r).sum() for g, r in zip(wrong, right, strict=True))
        share = torch.clamp(how["eta"] - along / square, min=0)
        for master, g, r in zip(masters, wrong, right, strict=True):
            master.grad = r + share * g
        adam.step()
    return _copy_values(pair.names, masters)


def _descend_copy(pair: Pair, batch: Sequence[tuple[str, Tensor]], label: str, inner: int) -> None:
    """Estimates min L_f from the current weights, on a copy with an optimiser of its own."""
    scratch: Any = type(pair.teacher)(copy.deepcopy(pair.student.pipeline), "scratch", compute=pair.teacher.compute)
    masters = [scratch.weights[name] for name in pair.names]
    adam = Adam(masters, lr=pair.asked.settings["lr"])
    for _ in range(inner):
        _step(adam, _compute_wrong(pair, scratch, batch, label))


def _compute_wrong(pair: Pair, student: Any, batch: Sequence[tuple[str, Tensor]], label: str) -> Tensor:
    """Computes L_f, which teaches the label's noise on pictures of the target."""
    x, t, _ = _draw_noised(pair, batch)
    other = predict_frozen(student, x, t, student.encode([label]))
    return weighted_mse(student.predict(x, t, student.encode([p for p, _ in batch]))[0], other, pair.weigh_error(t))


def _compute_right(pair: Pair, batch: Sequence[tuple[str, Tensor]]) -> Tensor:
    """Computes L_r, the denoising loss on pictures that remain."""
    x, t, eps = _draw_noised(pair, batch)
    return weighted_mse(
        pair.student.predict(x, t, pair.teacher.encode([p for p, _ in batch]))[0], eps, pair.weigh_error(t)
    )


def _draw_noised(pair: Pair, batch: Sequence[tuple[str, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    model = pair.teacher
    x0 = torch.cat([latents for _, latents in batch])
    t = torch.randint(len(model.levels), (len(x0),), generator=pair.rng).to(x0.device)
    eps = torch.randn(x0.shape, generator=pair.rng).to(x0)
    level = model.find_noise_level(t)
    x_t = add_noise(x0, eps, level)
    return x_t, t, convert(eps, x_t, level, "eps", model.space)


def _draw_batch(pair: Pair, pictures: Sequence[tuple[str, Tensor]], n: int) -> list[tuple[str, Tensor]]:
    return [pictures[pair.draw_number(len(pictures))] for _ in range(n)]


def _draw_picture(pair: Pair, prompt: str) -> Tensor:
    """Draws the latents of one picture."""
    how = pair.asked.settings
    cond, seed = pair.teacher.encode([prompt]), pair.draw_number(2**31)
    return pair.teacher.sample(
        cond, pair.uncond, [seed], steps=how["draw_steps"], guidance=how["guidance"], sampler="ddim"
    ).x


def _step(adam: Adam, loss: Tensor) -> None:
    adam.zero_grad(set_to_none=True)
    loss.backward()
    adam.step()


def _copy_values(names: Sequence[str], masters: Sequence[Tensor]) -> dict[str, Tensor]:
    pairs = zip(names, masters, strict=True)
    return {name: m.detach().cpu().clone(memory_format=torch.contiguous_format) for name, m in pairs}


REFERENCES: Mapping[str, Callable[..., dict[str, Tensor]]] = {
    "esd": esd,
    "eap": eap,
    "abo": abo,
    "p-esd": p_esd,
    "erasediff": erasediff,
}
PAPERS = ("esd", "eap")
"""Of these, whose baseline is the paper's own procedure; the others' is our unoptimised reference."""
