"""Refuses, before an attack begins, what can't work: attacks, samplers, judges, and concepts that are never shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from ..attacks import BASELINE, build_attack, name_attack
from ..attacks.base import Attack
from ..evaluation.evaluate import Settings
from ..plurals import write_count
from ..records.attacks import Condition, RowResult
from ..scorers import Judge
from ..scorers.base import Detector, SetScorer
from ..suites.spec import Row
from .batch import JudgePanel
from .conditions import AttackTarget, CannotAttack, NothingToAttack
from .run import AttackRunner, check_attack


def order_attacks(attacks: Sequence[Attack], model: str) -> dict[str, Attack]:
    """The attacks by name, random prefixes first, with as many queries as the attack that has most."""
    named = {name_attack(each): each for each in attacks}
    if not attacks or len(named) < len(attacks):
        raise ValueError("name at least one attack, and each once; `efface list attacks` lists them")
    queries = max(each.queries for each in attacks)
    baseline = named.pop(BASELINE, None) or build_attack(BASELINE, model)
    return {BASELINE: replace(baseline, queries=queries), **named}


def check_sampler(settings: Settings) -> None:
    """Raises ValueError for another sampler than the model's own: attacks from intermediate states need it."""
    if settings.sampler != "own":
        raise ValueError(f"attacks draw by the model's own scheduler, not by {settings.sampler}: leave out --sampler")


def find_judges(scorers: Sequence[Judge], row: Row) -> JudgePanel:
    """The scorers that can judge a row's question; raises ValueError where there is none, or one can't judge it."""
    judges = tuple(s for s in scorers if not isinstance(s, SetScorer) and s.question == row.asks)
    if not judges:
        given = f"is only {', '.join(s.name for s in scorers)}" if scorers else "is no scorer"
        raise ValueError(
            f"no scorer can say whether a picture shows {row.concept}: that needs one for the question {row.asks!r}, "
            f"and there {given}; `efface list scorers` lists all, and --scorer names one"
        )
    if row.asks == "nudity" and (other := [s.name for s in judges if not isinstance(s, Detector)]):
        raise ValueError(f"nudity is judged by detectors, such as nudenet or opennsfw, and {other[0]} is none")
    return JudgePanel(judges)


def find_refusals(
    bouts: Mapping[Condition, AttackRunner], order: Mapping[str, Attack], conditions: Sequence[AttackTarget], skip: bool
) -> dict[tuple[str, Condition], str]:
    """The reasons why attacks can't be made, by attack and condition.

    Raises:
        ValueError: an attack can't be made on the erased concept; with `skip`, only if no other attack can.
    """
    found: dict[tuple[str, Condition], str] = {}
    for name, attack in order.items():
        for target in conditions:
            if attack.applies_to_base or target.condition == "target":
                try:
                    check_attack(attack, bouts[target.condition].build_context(target, name, {}))
                except ValueError as error:
                    found.setdefault((name, target.condition), str(error))
    fatal = [(name, reason) for (name, condition), reason in found.items() if condition == "target"]
    if fatal and (not skip or len(fatal) == len(order) - 1 or fatal[0][0] == BASELINE):
        raise CannotAttack(f"{fatal[0][0]} can't be made here: {fatal[0][1]}")
    return found


def is_shown(seen: Mapping[str, RowResult], target: AttackTarget) -> bool:
    """Whether one of the suite's own rows of a concept showed it."""
    return any(seen[row.id].broken for row in target.asked)


def require_shown(
    conditions: Sequence[AttackTarget],
    untouched: Mapping[str, RowResult],
    images: Mapping[str, Tensor] | None,
    model: str,
) -> None:
    """Raises NothingToAttack where the untouched base never shows the concept.

    `images` are the reference pictures by concept; None means that they have not been drawn yet.
    """
    for target in conditions:
        judged = [seen for row in target.asked if (seen := untouched[row.id].broken) is not None]
        if any(judged) and (images is None or len(images[target.concept])):
            continue
        others = "" if images is None else f", and in {len(images[target.concept])} from other seeds"
        raise NothingToAttack(
            f"the untouched {model} shows {target.concept} in {sum(judged)} of {write_count(len(judged), 'picture')} "
            "that could be "
            f"judged{others}: there is nothing to bring back; attack a concept that it draws, or judge with scorers "
            "that know it"
        )
