"""Attacks on an edited model: who brings the concept back, how much of that is chance, and what a low rate is worth.

Every attack runs on the erased concept, on a kept concept of the same edited model and on the untouched base; in these
two controls the concept's name is removed from the prompts. Random prefixes with as many queries run beside it on each,
and beside an attack that hands in pictures also the same attack with pictures of another thing. A row that shows the
concept before any attack counts as broken and is not attacked, as in UnlearnDiffAtk.

An evaluation's folder gets `attacks.json` and `attacks/`: a file for each finished batch of rows, the pictures, and
embeddings that words can't say. The same call goes on where it was stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from ..attacks import BASELINE, configured, name_of
from ..attacks.base import Attack
from ..edits.edit import Edit
from ..evaluation.evaluate import Progress, Settings, describe_drawing
from ..models.base import Model
from ..records.attacks import FILE, AttackRecord, Condition, RowResult
from ..records.report import write_whole
from ..scorers import Judge
from ..scorers.base import SetScorer
from ..suites.spec import Row, Suite
from .batch import ImageJudge, JudgePanel
from .conditions import AttackTarget, ConceptAliases, build_targets, find_aliases, one_token_words
from .results import CampaignResults, ResultsByAttack, build_record
from .run import AttackResult, AttackRunner, draw_reference_images, no_pictures, plain

__all__ = ["Campaign", "ConceptAliases", "attack", "build_targets", "check_sampler", "find_aliases", "find_judges"]


@dataclass(frozen=True)
class Campaign:
    """How much is attacked."""

    rows: int = 50
    """Prompts of each erased concept."""
    controls: int = 16
    """Prompts in each control."""
    group: str = ""
    """The suite's group that is attacked; its first that must be gone where it is empty."""
    worst_case: bool = False
    """Make each attack only on rows that none before it broke: the worst case, sooner, without a table by attack."""
    skip: bool = False
    """Leave out, with an alarm, what can't be made on this model or edit, where something else can."""
    seed: int = 0
    """Of everything random in the attacks."""


OWN = Settings()
STANDARD = Campaign()


def attack(
    model: Model,
    edit_file: Path,
    suite: Suite,
    scorers: Sequence[Judge],
    out: Path,
    attacks: Sequence[Attack],
    aliases: Mapping[str, ConceptAliases] | None = None,
    settings: Settings = OWN,
    campaign: Campaign = STANDARD,
    progress: Progress | None = None,
) -> AttackRecord:
    """Attack an edited model, with its controls, and write `out`/attacks.json.

    Args:
        scorers: those that answer the question of the attacked rows are the judges.
        lore: what is known of concepts, by name (`lore_of` a glyphs world).
        progress: called with a stage's name, the rows done, and their number.

    Raises:
        ValueError: nothing to attack or to judge with; an attack named twice, without queries, or that can't be made
            here; the untouched base never shows the concept; a damaged edit or one of another base.
    """
    check_sampler(settings)
    order = _order(attacks, model.name)
    edit = Edit.load(edit_file)
    edit.check(model)
    words = model.architecture != "ddpm"
    conditions = build_targets(suite, aliases or {}, campaign.rows, campaign.controls, campaign.group, words)
    judges = find_judges(scorers, conditions[0].rows[0])
    base = AttackRunner(
        image_judge=ImageJudge(model, judges, out / "attacks", settings.steps, settings.guidance),
        edit=None,
        drawing=describe_drawing(model, replace(settings, strength=1.0), ""),
        originals=model.weights,
        reference_images={target.concept: no_pictures(model) for target in conditions},
        words=one_token_words(model),
        seed=campaign.seed,
        on_progress=progress or (lambda stage, done, total: None),
    )
    drawing = describe_drawing(model, settings, hashlib.sha256(edit_file.read_bytes()).hexdigest())
    edited = replace(base, edit=edit, drawing=drawing)
    with edit.apply(model, settings.strength):
        refused = _refused(
            {"control-base": base, "target": edited, "control-kept": edited}, order, conditions, campaign.skip
        )

    own, controls = ([p for p in conditions if (p.condition == "control-base") == control] for control in (False, True))
    untouched = _seen(base, own, named=True)
    reference_images = draw_reference_images(base, conditions)
    _must_show([p for p in own if p.condition == "target"], untouched["target"], reference_images, model.name)
    own = [target for target in own if len(reference_images[target.concept])]
    base = replace(base, reference_images=reference_images)
    edited = replace(edited, reference_images=base.reference_images)
    with edit.apply(model, settings.strength):
        named = _seen(edited, own, named=True)
        before = _seen(edited, own, named=False)
        by_attack, distractors = _fought(edited, order, own, before, refused, campaign.worst_case)
        intact = _intact(edited, order, [p for p in own if p.condition == "control-kept"], refused)
    before |= _seen(base, controls, named=False)
    more = _fought(base, order, controls, before, refused, False)
    untouched["control-base"] = named["control-base"] = untouched["target"]
    by_attack, distractors = by_attack | more[0], distractors | more[1]
    results = CampaignResults(
        order, [*own, *controls], untouched, named, before, by_attack, distractors, intact, campaign.worst_case
    )
    record = build_record(results, suite, edit, drawing, judges.identity(), campaign.seed)
    write_whole(out / FILE, record.model_dump_json(indent=1) + "\n")
    return record


def _order(attacks: Sequence[Attack], model: str) -> dict[str, Attack]:
    """The attacks by name, the floor first; it has as many queries as the one that has most."""
    named = {name_of(each): each for each in attacks}
    if not attacks or len(named) < len(attacks):
        raise ValueError("name at least one attack, and each once; `efface list attacks` lists them")
    if empty := [name for name, each in named.items() if each.queries < 1]:
        raise ValueError(f"{empty[0]} has no queries to spend; give it a budget of at least 1")
    queries = max(each.queries for each in attacks)
    baseline = named.pop(BASELINE, None) or configured(BASELINE, model)
    return {BASELINE: replace(baseline, queries=queries), **named}


def check_sampler(settings: Settings) -> None:
    """ValueError unless the model's own scheduler draws: attacks that go on from states on the way know no other."""
    if settings.sampler != "own":
        raise ValueError(f"attacks draw by the model's own scheduler, not by {settings.sampler}: leave out --sampler")


def find_judges(scorers: Sequence[Judge], row: Row) -> JudgePanel:
    """The judges of what a row asks; ValueError where there is none."""
    judges = tuple(s for s in scorers if not isinstance(s, SetScorer) and s.asks == row.asks)
    if not judges:
        raise ValueError(
            f"no scorer can say whether a picture shows {row.concept}: one that answers {row.asks!r} would, of "
            f"{', '.join(s.name for s in scorers) or 'no scorers'} none does; `efface list scorers` lists them"
        )
    return JudgePanel(judges)


def _refused(
    bouts: Mapping[Condition, AttackRunner], order: Mapping[str, Attack], conditions: Sequence[AttackTarget], skip: bool
) -> dict[tuple[str, Condition], str]:
    """Why which attacks can't be made where.

    Raises:
        ValueError: one can't be made on the erased concept, unless those are to be skipped and another can.
    """
    found: dict[tuple[str, Condition], str] = {}
    for name, attack in order.items():
        for target in conditions:
            if attack.applies_to_base or target.condition == "target":
                try:
                    attack.check(bouts[target.condition].context(target, name, {}))
                except ValueError as error:
                    found.setdefault((name, target.condition), str(error))
    fatal = [(name, reason) for (name, condition), reason in found.items() if condition == "target"]
    if fatal and (not skip or len(fatal) == len(order) - 1 or fatal[0][0] == BASELINE):
        raise ValueError(f"{fatal[0][0]} can't be made here: {fatal[0][1]}")
    return found


def _seen(
    runner: AttackRunner, conditions: Sequence[AttackTarget], named: bool
) -> dict[Condition, dict[str, RowResult]]:
    """What plain prompts show of the suite's rows (`named`), or of those that will be attacked."""
    found: dict[Condition, dict[str, RowResult]] = {target.condition: {} for target in conditions}
    for target in conditions:
        found[target.condition] |= plain(runner, target, target.asked if named else target.rows)
    return found


def _must_show(
    conditions: Sequence[AttackTarget],
    untouched: Mapping[str, RowResult],
    reference_images: Mapping[str, Tensor],
    model: str,
) -> None:
    """ValueError where the untouched base never shows what is to be brought back."""
    for target in conditions:
        judged = [seen for row in target.asked if (seen := untouched[row.id].broken) is not None]
        others = len(reference_images[target.concept])
        if not (any(judged) and others):
            raise ValueError(
                f"the untouched {model} shows {target.concept} in {sum(judged)} of {len(judged)} pictures that could "
                f"be judged, and in {others} from other seeds: there is nothing to bring back; attack a concept that "
                "it draws, or judge with scorers that know it"
            )


def _fought(
    runner: AttackRunner,
    order: Mapping[str, Attack],
    conditions: Sequence[AttackTarget],
    before: Mapping[Condition, Mapping[str, RowResult]],
    refused: Mapping[tuple[str, Condition], str],
    worst_case: bool,
) -> tuple[ResultsByAttack, ResultsByAttack]:
    """Every attack on rows that do not show the concept by themselves; and those by pictures, given another thing's."""
    found: ResultsByAttack = {}
    distractors: ResultsByAttack = {}
    fallen: set[str] = set()
    for name, attack in order.items():
        for target in conditions:
            if not attack.applies_to_base and target.condition != "target":
                continue
            whole = found.setdefault(
                (name, target.condition), AttackResult(missing=refused.get((name, target.condition), ""))
            )
            standing = [row for row in target.rows if not before[target.condition][row.id].broken]
            if worst_case and target.condition == "target":
                standing = [row for row in standing if row.id not in fallen]
            if whole.missing:
                continue
            whole.add(runner.run(name, attack, target, standing))
            if attack.threat == "pictures" and (other := runner.other_than(target.concept)):
                distractors.setdefault((name, target.condition), AttackResult()).add(
                    runner.run(name, attack, target, standing, other)
                )
        if name != BASELINE and (name, "target") in found:
            fallen |= {row for row, row_result in found[name, "target"].row_results.items() if row_result.broken}
    return found, distractors


def _intact(
    runner: AttackRunner,
    order: Mapping[str, Attack],
    kept: Sequence[AttackTarget],
    refused: Mapping[tuple[str, Condition], str],
) -> dict[str, dict[str, RowResult]]:
    """Of each attack that only undoes an edit: what the model that it makes shows of kept concepts, asked by name."""
    found: dict[str, dict[str, RowResult]] = {}
    for name, attack in order.items():
        if attack.applies_to_base or (name, "target") in refused:
            continue
        for target in kept:
            asked = replace(target, rows=target.asked, placeholder="")
            found.setdefault(name, {}).update(runner.run(name, attack, asked, target.asked).row_results)
    return found
