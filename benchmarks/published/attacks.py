"""The formulas of attacks without gradients, once more: by loops, numpy and diffusers' own schedule."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from efface.attacks.base import AttackContext
from efface.attacks.completion import Completion
from efface.attacks.merge import Merge
from efface.attacks.prune import Prune
from efface.attacks.quantise import Quantise
from efface.attacks.ring_a_bell import TEMPLATES, RingABell, compute_concept_vector, measure_text_distances
from efface.edits.edit import Edit
from efface.functional.genetic import Breeding, breed
from efface.functional.revival import complete

from .bench import Difference, apart, flat
from .searches import compare_steps, first_of, scene


def ring_a_bell(model: Any) -> Difference:
    """The distance from the prompt's encoding plus eta times what the name adds; a generation by loops."""
    how, strings = RingABell(length=4, eta=3.0), ["rose lion dog car", "cat cat apple tiger"]
    with scene(model) as s, torch.no_grad(), s.context.base(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of templates that are longer than the tiny model's prompts
        named, plain = ([t.format(word) for t in TEMPLATES] for word in ("cat", s.context.neutral))
        adds = torch.stack([s.read(s.tokens(a)) - s.read(s.tokens(b)) for a, b in zip(named, plain, strict=True)]).mean(
            0
        )
        goal = s.read(s.tokens("a red cat")) + 3.0 * adds
        by_hand = torch.stack([(s.read(s.tokens(text)) - goal).square().sum() for text in strings])
        ours = model.encode(["a red cat"]).flatten().float() + how.eta * compute_concept_vector(s.context)
        found = measure_text_distances(s.context, strings, ours, torch.tensor([0, 0]))
    return Difference(loss=apart(found, by_hand), closed_form=_breeding())


def _breeding() -> float:
    survivors = torch.randint(90, (12, 5), generator=torch.Generator().manual_seed(1))
    how, draws = Breeding(genes=90, length=5, population=24), torch.Generator().manual_seed(3)
    partner, cut = torch.randint(12, (12,), generator=draws), torch.randint(5, (12, 1), generator=draws)
    meets, rows = torch.rand(12, generator=draws) < 0.5, survivors.tolist()
    pairs = [(rows[i], rows[int(partner[i])], int(cut[i])) for i in range(12) if meets[i]]
    people = rows + [a[:at] + b[at:] for a, b, at in pairs] + [b[:at] + a[at:] for a, b, at in pairs]
    place = torch.randint(5, (len(people), 1), generator=draws)
    new, changes = (
        torch.randint(90, (len(people), 1), generator=draws),
        torch.rand(len(people), 1, generator=draws) < 0.25,
    )
    for i, row in enumerate(people):
        if changes[i]:
            people[i] = [*row[: int(place[i])], int(new[i]), *row[int(place[i]) + 1 :]]
    found = breed(survivors, how, torch.Generator().manual_seed(3))
    return apart(found.float(), torch.tensor(people).float())


def completion(model: Any) -> Difference:
    """sqrt(ab) z + sqrt(1 - ab) eps at the timestep from which a share of the schedule is left."""
    how = Completion(queries=1, strengths=(0.5,), says=("{}",), pictures=3)
    with scene(model) as s:
        (candidates, proposals) = first_of(how.propose(s.context, s.rows))
        proposals.close()
        latents, scheduler = s.context.encode_pictures(3), s.model.build_scheduler()
        scheduler.set_timesteps(s.model.defaults.steps)
        t = scheduler.timesteps[candidates[0].since]
        wanted = []
        for row in s.rows:
            picked = s.context.make_rng("completion", row.id).sample(range(3), 3)[0]
            eps = torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(row.seed))
            ab = scheduler.alphas_cumprod[t]
            wanted.append(ab.sqrt() * latents[picked] + (1 - ab).sqrt() * eps)
        left = len(scheduler.timesteps) - candidates[0].since
        assert left == round(0.5 * len(scheduler.timesteps)), "the share of the schedule that is drawn anew"
        return Difference(prediction=apart(torch.stack([c.start for c in candidates]), torch.stack(wanted)))


def revive(model: Any) -> Difference:
    """Compares with SoftImpute by eigenvectors, written in numpy."""
    rng = torch.Generator().manual_seed(0)
    weight, missing = torch.randn(9, 6, generator=rng), torch.rand(9, 6, generator=rng) < 0.2
    x = np.where(missing.numpy(), np.nan, weight.double().numpy())
    filled = np.where(np.isnan(x), np.nanmean(x, axis=0), x)
    for _ in range(4):
        values, vectors = np.linalg.eigh(filled.T @ filled)
        sizes = np.sqrt(np.clip(values, 0, None))
        filled = np.where(np.isnan(x), filled @ vectors @ np.diag(1 - sizes.min() / sizes) @ vectors.T, x)
    found = complete(weight.masked_fill(missing, 0), missing, rounds=4, tolerance=0)
    return Difference(closed_form=apart(found, torch.from_numpy(filled)))


def quantise(model: Any) -> Difference:
    """round(w / s) s, s the channel's largest magnitude by 2^(bits - 1) - 1."""

    def by_hand(w: np.ndarray) -> np.ndarray:
        step = np.abs(w).reshape(len(w), -1).max(1).reshape(-1, *[1] * (w.ndim - 1)) / 7
        return np.rint(w / np.where(step == 0, 1, step)) * step

    return _changed(model, Quantise(queries=1, bits=(4,)), by_hand)


def prune(model: Any) -> Difference:
    """Compares with setting the share of smallest magnitude to 0."""

    def by_hand(w: np.ndarray) -> np.ndarray:
        bound = np.sort(np.abs(w), axis=None)[round(0.3 * w.size)]
        return np.where(np.abs(w) < bound, 0, w)

    return _changed(model, Prune(queries=1, sparsities=(0.3,)), by_hand)


def _changed(model: Any, how: Any, by_hand: Callable[[np.ndarray], np.ndarray]) -> Difference:
    with scene(model) as s:
        names = [n for n, w in s.edited.items() if w.dim() >= 2 and ".embeddings." not in n and n.endswith(".weight")]
        _, proposals = first_of(how.propose(s.context, s.rows))
        found = flat([s.model.weights[name] for name in names])
        proposals.close()
        wanted = [torch.from_numpy(by_hand(s.edited[name].double().numpy())) for name in names]
        return compare_steps(flat([s.edited[name] for name in names]).double(), found.double(), flat(wanted))


def merge(model: Any) -> Difference:
    """(1 - s) W + s W0."""
    with scene(model) as s:
        names = [name for name in s.edited if "attn2" in name]
        edit = Edit({name: s.edited[name] for name in names}, {"method": "moved"})
        context = AttackContext(model, edit, "cat", s.context.base, ("lion",), s.context.words, s.context.pictures)
        _, proposals = first_of(Merge(queries=1, shares=(0.25,)).propose(context, s.rows))
        found = flat([model.weights[name] for name in names])
        proposals.close()
        old, new = (flat([of[name] for name in names]).double() for of in (s.base, s.edited))
        return compare_steps(new, found.double(), 0.75 * new + 0.25 * old)
