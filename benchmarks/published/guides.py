"""The inference-time methods, and STEREO's last erasing: predictions by hand, drawn through DDIM's own formula."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from efface.concept import Erasure
from efface.methods.guided import Guided
from efface.methods.negative import Negative
from efface.methods.safree import SAFREE
from efface.methods.sld import SLD
from efface.methods.stereo import STEREO
from efface.training.balance.sum import Sum
from efface.training.config import TrainConfig
from efface.training.loss_scale import compute_gradients
from efface.training.objectives.composition import Composition
from efface.training.states.conditions import Conditions
from efface.training.trainer import Trainer
from efface.training.updates.dense import Dense

from .bench import Difference, apart, flat, mse
from .closed import read

GUIDANCE, SEED, STEPS = 4.0, 3, 4
CAT = Erasure(("cat",))
Step = Callable[[int, Tensor, int], Tensor]
"""From the number of a step, x_t and t to the guided prediction."""


def by_hand(model: Any, predict: Step) -> Tensor:
    """Draws x_0 by DDIM (eta 0) from the seed's noise."""
    scheduler = model.build_scheduler("ddim")
    scheduler.set_timesteps(STEPS)
    bars, times = scheduler.alphas_cumprod, scheduler.timesteps.tolist()
    x = torch.randn((1, *model.latent_shape), generator=torch.Generator().manual_seed(SEED))
    for i, t in enumerate(times):
        eps, a = predict(i, x, t), bars[t]
        before = bars[times[i + 1]] if i + 1 < STEPS else scheduler.final_alpha_cumprod
        x = before.sqrt() * (x - (1 - a).sqrt() * eps) / a.sqrt() + (1 - before).sqrt() * eps
    return x


def ours(model: Any, method: Guided, prompt: str) -> Tensor:
    with method.fit(model, CAT).apply(model):
        cond, uncond = model.encode([prompt]), model.encode([""])
        return model.sample(cond, uncond, [SEED], steps=STEPS, guidance=GUIDANCE, sampler="ddim").x


def say(model: Any, x: Tensor, t: int, words: Tensor) -> Tensor:
    with torch.no_grad():
        return model.unet(x, t, words.float()[None]).sample


def negative(model: Any) -> Difference:
    """eps_n + w (eps_c - eps_n)."""

    def predict(_: int, x: Tensor, t: int) -> Tensor:
        eps_n, eps_c = (say(model, x, t, read(model, text)) for text in ("cat", "a red car"))
        return eps_n + GUIDANCE * (eps_c - eps_n)

    return Difference(prediction=apart(ours(model, Negative(), "a red car"), by_hand(model, predict)))


def sld(model: Any) -> Difference:
    """Equations 3 to 8, from the second step on; the momentum builds up before."""
    method = SLD(warm_up=1, scale=3.0, threshold=0.02, momentum_scale=0.4, momentum_beta=0.6)
    nu = torch.zeros(1, *model.latent_shape)

    def predict(i: int, x: Tensor, t: int) -> Tensor:
        nonlocal nu
        eps_0, eps_c, eps_s = (say(model, x, t, read(model, text)) for text in ("", "a red car", "cat"))
        mu = torch.where(eps_c - eps_s >= 0.02, 0.0, torch.clamp(3.0 * (eps_c - eps_s).abs(), max=1.0))
        gamma = mu * (eps_s - eps_0) + 0.4 * nu
        nu = 0.6 * nu + 0.4 * gamma
        return eps_0 + GUIDANCE * (eps_c - eps_0 - (gamma if i >= 1 else 0.0))

    return Difference(prediction=apart(ours(model, method, "a red car"), by_hand(model, predict)))


def safree(model: Any) -> Difference:
    """Embeddings filtered by projections that least squares find, for as many steps as the prompt looks suspicious."""
    found = Difference()
    for prompt in ("a red cat", "red cat dog"):
        words, last = _filtered(model, prompt, "cat")

        def predict(i: int, x: Tensor, t: int, words: Tensor = words, last: int = last, prompt: str = prompt) -> Tensor:
            eps_0 = say(model, x, t, read(model, ""))
            eps_c = say(model, x, t, words if i <= last else read(model, prompt))
            return eps_0 + GUIDANCE * (eps_c - eps_0)

        found = found.join(Difference(prediction=apart(ours(model, SAFREE(), prompt), by_hand(model, predict))))
    return found


def _filtered(model: Any, prompt: str, phrase: str) -> tuple[Tensor, int]:
    """The prompt's embeddings with those of its triggers moved, and the last step that they serve in."""

    def pooled(ids: list[int]) -> np.ndarray:
        with torch.no_grad():
            said = model.text_encoder(torch.tensor([ids])).last_hidden_state[0]
        return said[ids.index(model.tokenizer.eos_token_id)].double().numpy()

    def onto(rows: np.ndarray, x: np.ndarray) -> np.ndarray:
        return rows.T @ np.linalg.lstsq(rows.T, x, rcond=1e-5)[0]

    ids = model.tokenizer(prompt)["input_ids"]
    concept = pooled(model.tokenizer(phrase)["input_ids"])[None]
    without = np.stack([pooled([*ids[:i], 0, *ids[i + 1 :]]) for i in range(1, len(ids) - 1)])
    far = [float(np.linalg.norm(p - onto(concept, p))) for p in without]
    e = read(model, prompt)[: len(ids)].numpy()
    within = np.stack([onto(without, row) for row in e])
    new = within - np.stack([onto(concept, row) for row in within])
    alike = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(new, e, strict=True)]
    moved = read(model, prompt)
    for i, d in enumerate(far):
        if d >= 1.01 * (sum(far) - d) / (len(far) - 1):
            moved[i + 1] = torch.tensor(new[i + 1])
    z = 1 - sum(alike) / len(alike)
    return moved, round(10 / (1 + float(np.exp(-2 * 2.5 * (10 * z - 5.333)))))


def stereo(model: Any) -> Difference:
    """The last erasing's loss and gradient: away from all that shows the target, towards it in other places."""
    how = STEREO()
    negatives = {word: model.encode([word]) for word in ("cat", "tiger")}  # a word stands for a learned one
    term = Composition(Conditions(negatives, 3, 3.0, 2), [negatives], [["a cat"]], how.pull, how.push, "eps")
    config = TrainConfig(steps=2, batch=3, draw_steps=3)
    parts = {"terms": (term,), "update": Dense("xattn", 1e-3), "balance": Sum()}
    trainer = Trainer(model, CAT, name="stereo", arguments=asdict(how), config=config, **parts)
    with torch.no_grad():
        for i, master in enumerate(trainer.update.masters):
            master.add_(0.05 * torch.randn(master.shape, generator=torch.Generator().manual_seed(i)))
    with trainer.compute_losses(trainer.make_step(0, trainer.update)) as losses:
        grads, value = compute_gradients(trainer.update.list_params(), losses["erase"]), losses["erase"].item()
    asked = term.build_queries(trainer.context, trainer.make_step(0, trainer.update))
    assert asked is not None
    at, words = asked["student"].states, asked["student"].cond.tokens
    params = [leaf.detach().clone().requires_grad_() for leaf in trainer.update.list_params()]
    own = {n.removeprefix("unet."): p for n, p in zip(trainer.update.list_changed_names(), params, strict=True)}
    with torch.no_grad():
        eps_0, eps_a, eps_c, eps_n = (
            model.unet(at.x, at.t, read(model, text).float().expand(3, -1, -1)).sample
            for text in ("", "a cat", "cat", "tiger")
        )
    # compositional_guidance_scale 2: one less for anchors, one more for negatives.
    goal = eps_0 + (2 - 1) * (eps_a - eps_0) - (2 + 1) * ((eps_c + eps_n) / 2 - eps_0)
    loss = mse(torch.func.functional_call(model.unet, own, (at.x, at.t, words)).sample, goal)
    wanted = torch.autograd.grad(loss, params)
    return Difference(abs(value - loss.item()) / loss.item(), apart(flat(grads), flat(wanted)))
