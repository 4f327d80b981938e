"""`efface.takedown`: from a request to an answer: erase, judge, compare, attack, audit, report, record, export."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import check_folder, read_json, write_whole
from ..suites.drafting import find_kind
from ..suites.make import check_suite, make_suite
from .case import Words, to_tuple
from .choosing import choose_methods, read_choice_table
from .drafting import draft_suite, propose_judges
from .erasing import build_request
from .memory import with_memory_advice
from .progress import Progress, show_progress
from .publishing import record, report
from .resources import LazyModel, build_judges, choose_suite, find_world, open_later, open_to_judge, warn_if_undrawn
from .takedown_stages import (
    ChosenSuite,
    Trial,
    Work,
    attack_trial,
    audit_trial,
    choose_trial,
    describe_no_export,
    export_trial,
    refusing_draft,
    require_own_export,
    try_method,
)

if TYPE_CHECKING:
    from ..concept import Erasure
    from ..models.base import Model
    from ..planning.plan import Plan
    from ..scorers import Judge
    from ..suites.world import World
    from .takedown_plan import Profile, TakedownPlan

REQUEST = "request.json"
"""The file of the request, so that a folder is continued only for the same request."""
DRAFT = "suite.csv"
"""The file of a suite that is drafted for the request."""
OF_PEOPLE = (".csv", ".log", ".txt")
"""Suffixes of files that people put into the folder of a takedown before it begins."""
OF_WORLDS = ("object", "style")
"""Kinds of targets that the world of an embedded model can name."""


@dataclass(frozen=True)
class Answer:
    """The result of a takedown."""

    outcome: str
    """"ready", "not ready" or "undecided"; "planned" where nothing was started."""
    sentence: str
    plan: TakedownPlan
    method: str = ""
    """The method of the chosen edit."""
    files: dict[str, Path] | None = None
    """The edit, suite, report, record and export, by what they are."""


@with_memory_advice
def takedown(
    model: Model | LazyModel | str | Path,
    target: Words,
    out: str | Path,
    *,
    kind: str = "",
    method: str = "auto",
    profile: str = "standard",
    suite: str | Path = "",
    scorers: Words = (),
    anchor: str = "",
    keep: Words = (),
    note: str = "",
    requester: str = "",
    responder: str = "",
    settings: dict[str, dict[str, Any]] | None = None,
    dry_run: bool = False,
    progress: Progress = None,
    on_plan: Callable[[TakedownPlan], None] | None = None,
    on_memory: Callable[[Plan], None] | None = None,
    on_trial: Callable[[str, str], None] | None = None,
) -> Answer:
    """Answers a request to remove something from a model: plan, erase, judge, compare, attack, audit, report, record.

    Every stage leaves its files in `out`, and the same call continues an interrupted takedown. All methods that are
    tried are judged on one suite. The best one, by `choose_trial`, is attacked and audited. The report shows all.

    Args:
        model: what `efface.load` returned, or a name, folder or hub id.
        target: what is to be erased.
        out: folder for everything.
        kind: "person", "style", "object", "brand" or "nudity", for a drafted suite; by default what the names suggest.
        method: the method, or "auto" for the best of a measured table that serve the model (docs/choice.md).
        profile: "quick", "standard" or "thorough": how much is drawn, tried and attacked.
        suite: a suite by name or a file; by default the model's own, or one that is drafted into `out`/suite.csv.
        scorers: judges; by default the model's own, or those that are on this machine already.
        anchor, keep: as in `erase`.
        note, requester, responder: for the record, as in `record`.
        settings: arguments of single methods, by the method's name, over those that the model suggests.
        dry_run: plan, and start nothing.
        progress: as in `evaluate`.
        on_plan: called with the plan before anything starts.
        on_memory: called with the memory plan of each training.
        on_trial: called with each method's name and what its evaluation says, in a sentence, before it is attacked.

    Returns:
        The answer: `outcome` is "ready", "not ready" or "undecided" ("planned" for `dry_run`), `sentence` says why,
        and `files` has the edit, the report, the record and the export.

    Raises:
        ValueError: a request, profile, method, suite or judge that can't work, or `out` holds another takedown or
            other work.
    """
    from . import takedown_plan

    folder, opening, scorers = Path(out), open_later(model), to_tuple(scorers)
    if profile not in takedown_plan.PROFILES:
        raise ValueError(f"there is no profile {profile!r}; there are {', '.join(takedown_plan.PROFILES)}")
    check_folder(folder)
    how = takedown_plan.PROFILES[profile]
    erasure = build_request(opening.name, to_tuple(target), anchor, keep)
    own = find_kind(kind, erasure.targets)
    asked = {"model": opening.name, "request": asdict(erasure), "kind": own.name, "profile": profile}
    asked |= {"method": method, "suite": str(suite), "scorers": list(scorers), "settings": settings or {}}
    _require_same(folder, asked)
    known = find_world(opening.name)
    serves = known is not None and known.names_all(erasure.targets) and (not kind or own.name in OF_WORLDS)
    uses_world = serves and not suite
    if suite:
        check_suite(str(suite))
    judges = scorers or (() if serves else tuple(propose_judges(own)))
    opened = open_to_judge(opening)
    methods = choose_methods(opened, erasure, method, how.tries, settings=settings or {})
    table = read_choice_table().describe(opened) if method == "auto" else ""
    styles = known is not None and set(known.spell_names(erasure.targets)) <= set(known.styles)
    told_kind = "style" if uses_world and styles else own.name  # of the model's own names, its world knows the kind
    with refusing_draft(folder / DRAFT), show_progress(progress) as told:
        chosen = _choose_suite(opened, erasure, str(suite), known, uses_world, own.name, folder, how)
        panel = build_judges(opening.name, chosen.suite, judges, known)
        _check_judges(chosen, panel)
        named = [judge.name for judge in panel]
        plan = takedown_plan.build_plan(
            opened, erasure, told_kind, profile, methods, chosen.suite, named, table, settings, told
        )
    if on_plan:
        on_plan(plan)
    if dry_run:
        chosen.remove_draft()
        return Answer("planned", "Nothing was started.", plan)
    write_whole(folder / REQUEST, json.dumps(asked, indent=1, ensure_ascii=False) + "\n")
    signed = {"note": note, "requester": requester, "responder": responder}
    world = known if serves else None
    with show_progress(progress) as told:
        work = Work(opened, erasure, own, world, folder, chosen, judges, how, signed, settings or {}, told)
        if not any((folder / each / "evaluation").exists() for each in methods):
            warn_if_undrawn(opened, erasure.targets, chosen.suite, panel, told)
        return _answer(work, plan, _try_methods(work, methods, on_memory, on_trial))


def _choose_suite(
    model: Model,
    erasure: Erasure,
    named: str,
    known: World | None,
    uses_world: bool,
    kind: str,
    folder: Path,
    how: Profile,
) -> ChosenSuite:
    """The suite that is named, or that of the model's world, or one that is drafted into the folder."""
    name, size, draft = named, how.per_group, None
    if known and uses_world:
        name = choose_suite(erasure, known)
    elif not named:
        file = folder / DRAFT
        if not file.is_file():  # one that people edited stays
            draft = draft_suite(model, erasure.targets, file, kind=kind, size=size or 160)
        name, size = str(file), None  # a draft has its own numbers of pictures
    suite = make_suite(name, erasure, known, per_group=size)
    groups = tuple(g.name for g in suite.spec.groups if g.name in how.groups)
    suite = make_suite(name, erasure, known, per_group=size, only=groups) if groups else suite
    return ChosenSuite(name, suite, size, groups, draft)


def _check_judges(chosen: ChosenSuite, panel: Sequence[Judge]) -> None:
    """Raises ValueError where the judges can't judge the suite, or whether the target is there."""
    from ..evaluation.evaluate import check_scorers
    from ..robustness.refusing import find_judges

    check_scorers(panel, chosen.suite)
    for row in [row for row in chosen.suite.rows if row.role != "keep"][:1]:
        find_judges(panel, row)


def _try_methods(
    work: Work,
    methods: Sequence[str],
    on_memory: Callable[[Plan], None] | None,
    on_trial: Callable[[str, str], None] | None,
) -> list[Trial]:
    """Fits and evaluates each method, and tells what its evaluation says."""
    from ..reporting.verdict import UNATTACKED

    trials = []
    for method in methods:
        trials.append(try_method(work, method, on_memory))
        if on_trial:
            on_trial(method, trials[-1].verdict.sentence.removesuffix(UNATTACKED))
    return trials


def _answer(work: Work, plan: TakedownPlan, trials: Sequence[Trial]) -> Answer:
    """Attacks and audits the best edit, and writes the files that answer the request."""
    from ..reporting.verdict import build_verdict

    best = choose_trial(trials)
    require_own_export(work, best)
    attacks = attack_trial(work, best)
    audit_trial(work, best)
    page = report([t.folder for t in (best, *(t for t in trials if t is not best))], work.out / "report.html")
    record(best.folder, best.edit, **work.signed)
    files = {"edit": best.edit, "report": page, "record": best.folder / "takedown.html"}
    verdict = build_verdict(best.record, attacks)
    files |= export_trial(work, best, verdict)
    tried = ", ".join(t.method for t in trials if t is not best)
    sentence = f"{verdict.sentence} Method: {best.method}{f', chosen over {tried}' if tried else ''}."
    if "export" not in files:
        sentence = f"{sentence} {describe_no_export(best, trials)}"
    return Answer(verdict.outcome, sentence, plan, best.method, files)


def _require_free(folder: Path) -> None:
    """Raises ValueError where a folder in which no takedown was begun holds other work than prompts and notes."""
    held = sorted(folder.iterdir()) if folder.is_dir() else []
    if other := [each.name for each in held if not each.name.startswith(".") and each.suffix not in OF_PEOPLE]:
        raise ValueError(
            f"{folder} holds other work ({', '.join(other[:3])}) and no {REQUEST} of a takedown; give a new folder"
        )


def _require_same(folder: Path, asked: dict[str, Any]) -> None:
    """Raises ValueError where the folder holds the answer to another request."""
    from ..records.report import list_differences

    file = folder / REQUEST
    if not file.is_file():
        _require_free(folder)
        return
    before = read_json(file, remedy := "give another --out")
    if not isinstance(before, dict):
        raise ValueError(f"{file} is damaged (it holds a {type(before).__name__}); {remedy}")
    if different := list_differences(before, json.loads(json.dumps(asked))):
        raise ValueError(f"{folder} holds another takedown ({'; '.join(different[:3])}); give another --out")
