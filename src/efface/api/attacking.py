"""`efface.attack`: attempts to bring back what an edit erased."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..concept import fold_name
from ..edits.strength import check_strength
from ..suites.make import check_suite
from .case import Case, Words, to_tuple
from .memory import with_memory_advice
from .progress import Progress, Report, show_progress_with_steps
from .resources import LazyModel, build_judges, open_later, open_to_judge

if TYPE_CHECKING:
    from ..attacks.base import Attack
    from ..edits.edit import Edit
    from ..evaluation.evaluate import Settings
    from ..models.base import Model
    from ..planning.gradients import GradientPlan
    from ..records.attacks import AttackRecord
    from ..robustness.conditions import ConceptAliases
    from ..scorers import Judge
    from ..suites.spec import Suite


@with_memory_advice
def attack(
    model: Model | LazyModel | str | Path,
    edit: Edit | str | Path,
    out: str | Path,
    suite: str | Path = "",
    *,
    asks: str = "",
    attacks: str | Attack | Sequence[str | Attack] = "standard",
    budget: str = "default",
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    synonyms: Mapping[str, Words] | None = None,
    scorers: Sequence[str | Judge] = (),
    group: str = "",
    rows: int = 50,
    controls: int = 16,
    worst_case: bool = False,
    store: str | Path | None = None,
    strength: float = 1.0,
    steps: int | None = None,
    guidance: float | None = None,
    scorer_timeout: float = 600.0,
    seed: int = 0,
    max_memory: str | int | None = None,
    progress: Progress = None,
    on_plan: Callable[[GradientPlan], None] | None = None,
) -> AttackRecord:
    """Attacks an edited model, with the untouched base, a kept concept and random prefixes as controls.

    Args:
        model, edit, suite, asks, scorers, strength, steps, guidance, scorer_timeout, progress: as in `evaluate`.
        out: the folder for attacks.json and pictures, for example an evaluation's own; unfinished attacks are
            continued.
        attacks: names or instances, or "standard" for five of them.
        budget: the budget of each named attack: "default", "paper", a factor such as "4x", or a number of queries.
        settings: settings of named attacks, by the attack's name.
        synonyms: other names of a concept, by the concept, beside those that come with the model or the suite.
        group: the suite's group that is attacked; by default the first one whose concepts must be gone.
        rows: the largest number of prompts of each erased concept.
        controls: the largest number of prompts in each control.
        worst_case: whether each attack is made only on rows that no attack before it broke.
        store: the folder of the attacks' batches and pictures, by default `out`/attacks; edits that share one attack
            the untouched base once.
        seed: the seed of everything random in the attacks.
        max_memory: the most memory that attacks by gradients may need: bytes, or "8GB"; by default what is free. They
            differentiate as many rows at once as fit.
        on_plan: called with the memory plan of attacks by gradients, if there are any, before they start.

    Returns:
        The content of attacks.json. `robust` is the share of rows that nothing broke, `measures` has the rate of each
        attack in each condition (`find(attack)` for the one on the target), each with its 95 % interval; `alarms` say
        where a low rate is misleading.

    Raises:
        DoesNotFit: an attack by gradients needs more memory than it may have; the message says what would fit.
        ValueError: there is nothing to attack or no judge, an attack can't be made here, the base does not show the
            concept, or the edit is of another base.
    """
    check_strength(strength)
    opening, folder = open_later(model), Path(out)
    if suite:
        check_suite(str(suite))
    chosen, skip = choose_attacks(attacks, opening.name, budget, settings or {})
    from ..evaluation.evaluate import Settings
    from ..planning.machine import read_memory_limit
    from ..robustness.campaign import Campaign
    from ..robustness.campaign import attack as run
    from ..robustness.conditions import find_aliases

    limit = read_memory_limit(max_memory)
    how = Settings(steps, guidance, strength, scorer_timeout=scorer_timeout)
    campaign = Campaign(rows, controls, group, worst_case, skip, seed)
    case = Case.of(opening, edit, folder)
    made = case.find_suite(str(suite), asks=asks)
    aliases = add_aliases(find_aliases(case.known, made.spec), synonyms or {})
    judges = build_judges(opening.name, made, scorers, None)
    opened = open_to_judge(opening)
    with show_progress_with_steps(progress, opened) as report:
        require_gradient_memory(opened, chosen, limit, on_plan, report)
        where = Path(store) if store else None
        return run(opened, case.file, made, judges, folder, chosen, aliases, how, campaign, report, where)


def require_gradient_memory(
    model: Model,
    attacks: Sequence[Attack],
    limit: int | None,
    on_plan: Callable[[GradientPlan], None] | None,
    report: Report,
) -> None:
    """Plans the memory of attacks by gradients; the model then differentiates as many rows at once as fit."""
    rows = max((each.batch_size for each in attacks if each.threat == "gradients"), default=0)
    if not rows:
        return
    from ..planning.gradients import plan_gradients
    from ..planning.machine import read_free_bytes

    report("planning the attacks' memory", 0, 1)
    plan = plan_gradients(model, rows, limit or read_free_bytes(model.device))
    model.gradient_rows = plan.at_once if plan.at_once < rows else 0
    report("planning the attacks' memory", 1, 1)
    if on_plan:
        on_plan(plan)


def add_aliases(known: Mapping[str, ConceptAliases], synonyms: Mapping[str, Words]) -> dict[str, ConceptAliases]:
    """Adds further names to the known names of concepts."""
    from ..robustness.conditions import ConceptAliases

    found = dict(known)
    for given, words in synonyms.items():
        concept = next((name for name in found if fold_name(name) == fold_name(given)), given)
        before = found.get(concept, ConceptAliases())
        found[concept] = ConceptAliases((*before.synonyms, *to_tuple(words)), before.paraphrases)
    return found


def choose_attacks(
    asked: str | Attack | Sequence[str | Attack], model: str, budget: str, settings: Mapping[str, Mapping[str, Any]]
) -> tuple[list[Attack], bool]:
    """The attacks with their budgets, and whether impossible ones are left out, as with the standard attacks."""
    from ..attacks import STANDARD, build_attack, find_name

    each = [asked] if isinstance(asked, str) or not isinstance(asked, Sequence) else list(asked)
    flat = [one for some in each for one in (STANDARD if some == "standard" else (some,))]
    names = list(dict.fromkeys(find_name(one) for one in flat if isinstance(one, str)))
    if stray := [name for name in settings if find_name(name) not in names]:
        raise ValueError(f"settings name {stray[0]}, which is not among the attacks: {', '.join(names)}")
    by_name = {find_name(name): values for name, values in settings.items()}
    made = [build_attack(name, model, budget, by_name.get(name)) for name in names]
    return [*made, *(one for one in flat if not isinstance(one, str))], "standard" in each


def check_attackable(
    suite: Suite, scorers: Sequence[Judge], settings: Settings, rows: int | None = None, controls: int | None = None
) -> None:
    """Raises ValueError before the evaluation where the attacks would have no row to attack or no judge.

    Args:
        rows, controls: prompts, at most, as in `attack`; those of the standard attacks by default.
    """
    from ..robustness.campaign import Campaign
    from ..robustness.conditions import build_targets
    from ..robustness.refusing import check_sampler, find_judges

    check_sampler(settings)
    grounds = build_targets(suite, {}, rows or Campaign.rows, controls or Campaign.controls)
    find_judges(scorers, grounds[0].rows[0])


def attack_standard(
    model: Model, case: Case, suite: Suite, scorers: Sequence[Judge], out: Path, settings: Settings, report: Report
) -> None:
    """Makes the standard attacks, beside the evaluation."""
    from ..robustness.campaign import Campaign, attack
    from ..robustness.conditions import find_aliases

    made, skip = choose_attacks("standard", model.name, "default", {})
    aliases = find_aliases(case.known, suite.spec)
    require_gradient_memory(model, made, None, None, report)
    attack(model, case.file, suite, scorers, out, made, aliases, settings, Campaign(skip=skip), report)
