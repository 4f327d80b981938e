"""Attacks an edited model: which attacks bring the concept back, how often by chance, and what a low rate means.

Every attack runs on the erased concept, on a kept concept of the same edited model and on the untouched base; in these
two controls the concept's name is removed from the prompts. Its baseline is random prefixes with as many queries on
each, and for an attack with pictures as input also the same attack with pictures of a kept thing. A row that shows the
concept before any attack counts as broken and is not attacked, as in UnlearnDiffAtk.

An evaluation's folder gets `attacks.json` and `attacks/`: a file for each finished batch of rows, the pictures, and
embeddings that no words have. The same call continues where it was stopped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from ..attacks import BASELINE
from ..attacks.base import Attack
from ..edits.edit import Edit
from ..evaluation.asking import ScorerWatch
from ..evaluation.evaluate import Progress, Settings, describe_drawing
from ..evaluation.trial import try_scorers
from ..files import hash_file
from ..models.base import Model
from ..models.text_room import describe_search
from ..records.attack_files import read_file
from ..records.attacks import FOLDER, AttackRecord, Condition, PlannedAttack, RowResult
from ..records.basis import require_before_attacking, require_same_basis
from ..records.report import Drawing
from ..scorers import Judge
from ..suites.spec import Suite
from .batch import ImageJudge, JudgePanel
from .conditions import (
    AttackTarget,
    Campaign,
    ConceptAliases,
    build_targets,
    find_aliases,
    list_one_token_words,
)
from .merging import Log
from .progress import CampaignProgress
from .refusing import check_sampler, find_judges, find_refusals, is_shown, order_attacks, require_shown
from .results import CampaignResults, build_record, describe_suite
from .run import AttackResult, AttackRunner, draw_plain, draw_reference_images, make_no_pictures

__all__ = ["Campaign", "ConceptAliases", "attack", "build_targets", "find_aliases"]

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
    store: Path | None = None,
) -> AttackRecord:
    """Attacks an edited model, with controls, and writes `out`/attacks.json.

    Earlier attacks in this folder stay in its record: the worst case is over all of them.

    Args:
        model: the untouched base.
        edit_file: the edit.
        suite: the suite whose rows are attacked.
        scorers: the scorers; those that answer the question of the attacked rows are the judges.
        out: the evaluation's folder.
        attacks: the attacks.
        aliases: other names of concepts, by concept.
        settings: how pictures are drawn.
        campaign: the number of rows, and what is attacked.
        progress: called with a stage's name, the number of rows done, and their total; also for all attacks together.
        store: the folder of batches and pictures, `out`/attacks by default; several attacked edits may share one.

    Raises:
        ValueError: there is nothing to attack or no judge; an attack is named twice, has no queries, or can't be made
            here; the untouched base never shows the concept; the edit is damaged or of another base; the folder holds
            attacks or an evaluation of another edit, drawn or judged differently, or a damaged record.
        Unmeasured: a judge fails for every picture; this is raised before anything is drawn.
    """
    check_sampler(settings)
    order = order_attacks(attacks, model.name)
    edit = Edit.load(edit_file)
    edit.check(model)
    words = model.architecture != "ddpm"
    conditions = build_targets(suite, aliases or {}, campaign.rows, campaign.controls, campaign.group, words)
    folder = store or out / FOLDER
    watch = ScorerWatch(settings.scorer_timeout, progress)
    judges = replace(find_judges(scorers, conditions[0].rows[0]), watch=watch)
    told = CampaignProgress(progress)
    base = AttackRunner(
        image_judge=ImageJudge(model, judges, folder, settings.steps, settings.guidance),
        edit=None,
        drawing=describe_drawing(model, replace(settings, strength=1.0), ""),
        originals=model.weights,
        reference_images={target.concept: make_no_pictures(model) for target in conditions},
        words=list_one_token_words(model),
        seed=campaign.seed,
        on_progress=told,
        erased={target.concept for target in conditions if target.condition == "target"},
    )
    drawing = describe_drawing(model, settings, hash_file(edit_file))
    edited = replace(base, edit=edit, drawing=drawing)
    earlier = _read_earlier(out, suite, conditions, judges, drawing)
    runners: dict[Condition, AttackRunner] = {"control-base": base, "target": edited, "control-kept": edited}
    with edit.apply(model, settings.strength):
        refused = find_refusals(runners, order, conditions, campaign.skip)

    try_scorers(judges.judges, [row for target in conditions for row in target.asked], model.resolution, watch=watch)
    own, controls = ([p for p in conditions if (p.condition == "control-base") == control] for control in (False, True))
    asked, kept = ([p for p in own if (p.condition == "target") == target] for target in (True, False))
    untouched, reference_images, shown = _draw_untouched(base, asked, kept, conditions, order)
    own = [target for target in own if target.concept in shown or len(reference_images[target.concept])]
    base, edited = (replace(runner, reference_images=reference_images) for runner in (base, edited))

    with edit.apply(model, settings.strength):
        named, before = (_draw_plain(edited, own, named=each) for each in (True, False))
        named["control-base"] = untouched["target"]
        results = CampaignResults(order, own, untouched, named, before, worst_case=campaign.worst_case)
        results.searched = describe_search(model)
        planned = [*_plan_attacks(edited, order, own, refused), *_plan_attacks(base, order, controls, refused)]
        log = Log(out, folder, earlier, planned, partial(build_record, results, suite, edit, drawing, judges, campaign))
        log.write()
        told.expect(planned)
        _attack_all(edited, results, own, refused, log)
        _look_at_kept(edited, results, [p for p in own if p in kept], refused)
    before |= _draw_plain(base, controls, named=False)
    results.conditions = [*own, *controls]
    _attack_all(base, results, controls, refused, log)
    told.finish()
    return log.write()


def _read_earlier(
    out: Path, suite: Suite, conditions: Sequence[AttackTarget], judges: JudgePanel, drawing: Drawing
) -> AttackRecord | None:
    """The record of earlier attacks in this folder; ValueError where they, or its evaluation, have another basis."""
    suite_now = describe_suite(suite)
    require_before_attacking(out, drawing, suite_now)
    if earlier := read_file(out):
        targets = tuple(target.concept for target in conditions if target.condition == "target")
        now = {"targets": targets, "suite": suite_now, "scorers": judges.describe(), "drawing": drawing}
        require_same_basis(earlier, now)
    return earlier


def _draw_untouched(
    base: AttackRunner,
    asked: Sequence[AttackTarget],
    kept: Sequence[AttackTarget],
    conditions: Sequence[AttackTarget],
    order: Mapping[str, Attack],
) -> tuple[dict[Condition, dict[str, RowResult]], dict[str, Tensor], set[str]]:
    """Draws the suite's rows and the reference pictures with the untouched base.

    Returns:
        The rows' results, the reference pictures [n, 3, h, w] by concept, and the concepts that need none: where no
        attack learns from pictures, these are drawn only of concepts that the base has not shown by then.

    Raises:
        NothingToAttack: the base never shows an erased concept.
    """
    model = base.image_judge.model.name
    seen = _draw_plain(base, asked, named=True)
    require_shown(asked, seen["target"], None, model)  # before the kept concepts are drawn
    seen |= _draw_plain(base, kept, named=True)
    learning = any(each.learns_from_images for each in order.values())
    shown = set() if learning else {t.concept for t in (*asked, *kept) if is_shown(seen[t.condition], t)}
    images = draw_reference_images(base, conditions, shown)
    if learning:
        require_shown(asked, seen["target"], images, model)
    seen["control-base"] = seen["target"]
    return seen, images, shown


def _draw_plain(
    runner: AttackRunner, conditions: Sequence[AttackTarget], named: bool
) -> dict[Condition, dict[str, RowResult]]:
    """The results of plain prompts for the suite's rows (`named`), or for the rows that will be attacked."""
    found: dict[Condition, dict[str, RowResult]] = {target.condition: {} for target in conditions}
    for target in conditions:
        found[target.condition] |= draw_plain(runner, target, named)
    return found


def _plan_attacks(
    runner: AttackRunner,
    order: Mapping[str, Attack],
    targets: Sequence[AttackTarget],
    refused: Mapping[tuple[str, Condition], str],
) -> list[PlannedAttack]:
    """The attacks that will be made on these targets."""
    found = []
    for name, attack in order.items():
        for condition, group in _group_by_condition(attack, targets).items():
            if (name, condition) not in refused:
                entry = PlannedAttack(
                    attack=name,
                    condition=condition,
                    version=attack.version,
                    settings=json.loads(json.dumps(asdict(attack))),
                    inputs=tuple(runner.identify(name, attack, target) for target in group),
                    rows=sum(len(target.rows) for target in group),
                )
                found.append(entry)
    return found


def _group_by_condition(attack: Attack, targets: Sequence[AttackTarget]) -> dict[Condition, list[AttackTarget]]:
    """The targets of an attack, by condition; an attack that only undoes an edit has no control on the base."""
    found: dict[Condition, list[AttackTarget]] = {}
    for target in targets:
        if attack.applies_to_base or target.condition == "target":
            found.setdefault(target.condition, []).append(target)
    return found


def _attack_all(
    runner: AttackRunner,
    results: CampaignResults,
    targets: Sequence[AttackTarget],
    refused: Mapping[tuple[str, Condition], str],
    log: Log,
) -> None:
    """Makes every attack on the rows that do not show the concept yet, and the baselines of attacks with pictures."""
    fallen: set[str] = set()
    for name, attack in results.order.items():
        for condition, group in _group_by_condition(attack, targets).items():
            reason = refused.get((name, condition), "")
            whole = AttackResult(missing=reason, status="refused" if reason else "made")
            other = AttackResult()
            for target in group:
                rows = [row for row in target.rows if not results.before[condition][row.id].broken]
                if results.worst_case and condition == "target":
                    rows = [row for row in rows if row.id not in fallen]
                if whole.missing:
                    whole.inputs.append(runner.identify(name, attack, target))
                    continue
                whole.add(runner.run(name, attack, target, rows))
                if attack.hands_in_images and (shown := runner.find_other(target.concept)):
                    other.add(runner.run(name, attack, target, rows, shown))
                    results.distractors[name, condition] = other
            results.by_attack[name, condition] = whole
            log.write()
            if name != BASELINE and condition == "target":
                fallen |= {row for row, result in whole.row_results.items() if result.broken}


def _look_at_kept(
    runner: AttackRunner,
    results: CampaignResults,
    kept: Sequence[AttackTarget],
    refused: Mapping[tuple[str, Condition], str],
) -> None:
    """Draws kept concepts by name, for each attack that only undoes an edit, with the model that it makes."""
    for name, attack in results.order.items():
        if attack.applies_to_base or (name, "target") in refused:
            continue
        for target in kept:
            asked = replace(target, rows=target.asked, placeholder="")
            run = runner.run(name, attack, asked, target.asked, plain=f"after {name}")
            results.intact.setdefault(name, {}).update(run.row_results)
