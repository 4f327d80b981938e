"""The losses of compositions that no paper has, by hand."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from efface.methods.compose import Compose
from efface.methods.hardened import Hardened
from efface.methods.surgical import Surgical

from .bench import Bench, Difference, Losses, mse
from .trained import CAT, QUICK, TO_DOG, before_choice, choose, encode_by, moved, negative_guidance


def compose(model: Any) -> Difference:
    """A mix of no paper: here ESD's objective with ABO's preservation."""

    def theirs(b: Bench) -> Losses:
        at, empty = b.build_queries(0)["student"].states, b.read("", n=3)
        return {"erase": negative_guidance(b), "keep": mse(b.student(at, empty), b.base(at, empty))}

    return Bench(Compose(**QUICK, preserve="unconditional", keep_weight=0.5), model, CAT).compare(theirs, 0.5)


def surgical(model: Any) -> Difference:
    """ABO's loss in units of pictures plus EAP's second loss, and pi's ascent of the latter."""
    found = Difference()
    for learner in (0, 1):
        bench = Bench(Surgical(**QUICK, centres=4, keep_weight=0.7), model, TO_DOG, learner)
        state = before_choice(bench)

        def theirs(b: Bench, learner: int = learner, state: Tensor = state) -> Losses:
            keep = preserve(b, learner, state)
            if learner:
                return {"keep": keep}
            own, cat, empty = b.build_queries(0)["student_c"].states, b.read("cat", n=3), b.read("", n=3)
            eps_0, now_0, weight = b.base(own, empty), b.student(own, empty), b.x0_weight(own.t)
            goal = b.base(own, b.read("dog", n=3)) - eps_0
            erase = mse(b.student(own, cat) - now_0.detach(), goal, weight)
            return {"erase": erase, "keep": keep + mse(now_0, eps_0, weight)}

        found = found.join(bench.compare(theirs, 0.7))
    return found


def hardened(model: Any) -> Difference:
    """ESD's loss in units of pictures behind the prefix that was found, EAP's second loss, and pi's ascent of it."""
    found = Difference()
    for learner in (0, 1):
        how = {"warm_up": 0, "attack_steps": 2, "attack_tokens": 2, "keep_weight": 0.7}
        bench = Bench(Hardened(**QUICK, centres=4, **how), model, CAT, learner)
        state = before_choice(bench)

        def theirs(b: Bench, learner: int = learner, state: Tensor = state) -> Losses:
            keep = preserve(b, learner, state)
            if learner:
                return {"keep": keep}
            asked = b.build_queries(0)["student"]
            own, hard = asked.states, encode_by(b, {}, ["cat"] * 3, asked.prefix)
            eps_c, eps_0 = b.base(own, b.read("cat", n=3)), b.base(own, b.read("", n=3))
            return {"erase": mse(b.student(own, hard), eps_0 - (eps_c - eps_0), b.x0_weight(own.t)), "keep": keep}

        found = found.join(bench.compare(theirs, 0.7))
    return found


def preserve(b: Bench, learner: int, state: Tensor) -> Tensor:
    """EAP's second loss, of the weights (learner 0) or of the search (learner 1)."""
    table, choice = choose(b, state, learner, hard=True, temperature=2.0, top=0)
    at, held = b.build_queries(1)["student"].states, (choice.detach() @ table).unflatten(1, (8, -1))
    words = (choice @ table).unflatten(1, (8, -1)) if learner else held
    weights = moved(b) if learner else b.weights()
    return mse(b.student(at, words, weights), b.base(at, held), b.x0_weight(at.t))
