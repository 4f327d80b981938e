"""`efface.evaluate`: draws a suite with and without an edit, and judges it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from ..concept import check_choice
from ..edits.strength import check_strength
from ..suites.make import check_suite, needs_world
from ..suites.world import locate
from .attacking import attack_standard, check_attackable
from .case import Case, Words, check_share
from .drawing import SAMPLERS, Sampler
from .memory import with_memory_advice
from .progress import Progress, show_progress_with_steps
from .resources import LazyModel, build_judges, choose_suite, open_later, open_to_judge, to_file_name
from .tracking import FOLDER, Track, check_trackers, name_rates, open_trackers

if TYPE_CHECKING:
    from ..concept import Erasure
    from ..edits.edit import Edit
    from ..evaluation.protocols import Protocol
    from ..models.base import Model
    from ..records.report import Record
    from ..scorers import Judge
    from ..suites.spec import Suite

Attacks = Literal["none", "standard"]


@with_memory_advice
def evaluate(
    model: Model | LazyModel | str | Path,
    edit: Edit | str | Path,
    out: str | Path,
    suite: str | Path = "",
    *,
    asks: str = "",
    scorers: Sequence[str | Judge] = (),
    protocol: str = "",
    per_group: int | None = None,
    groups: Words = (),
    sizes: Mapping[str, int] | None = None,
    fraction: float = 1.0,
    images: str | Path | None = None,
    attacks: Attacks = "none",
    strength: float = 1.0,
    steps: int | None = None,
    guidance: float | None = None,
    sampler: Sampler = "own",
    scorer_timeout: float = 600.0,
    progress: Progress = None,
    on_suite: Callable[[Suite], None] | None = None,
    track: Track = (),
    track_dir: str | Path = FOLDER,
) -> Record:
    """Draws a suite with the untouched base and the edited model, judges every picture, and writes the rates.

    Args:
        model: the result of `efface.load`, or the name, folder or hub id of the base that the edit was made for.
        edit: the result of `efface.erase`, or its file. An edit that is only in memory is saved to
            `out`/edit.safetensors.
        out: the folder for pictures, scores and report.json; an unfinished evaluation in it is continued.
        suite: the name of a suite, or a file of prompts (.csv, .json, .txt, .parquet); by default the protocol's, or
            the one that suits the model.
        asks: what all rows of a suite's file ask for: a target, object:TARGET or style:TARGET, or captions for nothing;
            by default its columns say it, or the names in its prompts.
        scorers: names or instances; by default all that come with the model.
        protocol: a published way to evaluate, by name.
        per_group: the number of pictures in each group of the suite, instead of its own numbers.
        groups: the names of the groups to evaluate; all by default.
        sizes: the number of pictures in each of these groups; only they are evaluated.
        fraction: the share of each group's pictures to draw, at least one.
        images: the folder for the pictures, by default `out`/images; evaluations that share one draw the base once.
        attacks: "standard" makes the five standard attacks afterwards.
        strength, steps, guidance, sampler: how pictures are drawn; the protocol's or the model's own by default.
        scorer_timeout: seconds that one call of a scorer may take; pictures of a longer call have no score.
        progress: None shows bars on a terminal, False nothing; or a function of (stage, done, total).
        on_suite: called with the suite before anything is drawn; its `summary` says how a file was read.
        track, track_dir: where all rates go, at step 0, as in `erase`.

    Returns:
        The content of report.json. `measures` has every number of the base and of the edit with n and its 95 %
        interval (`find("esr1", "target")` for one), `list_headlines()` those to read first; `alarms` say where
        numbers are misleading.

    Raises:
        ValueError: a suite, group, scorer, protocol, sampler or kind of attacks is unknown or can't judge what was
            erased, a number is impossible, the edit is of another base, or the folder holds another evaluation.
        OSError: a file is missing, or the folder can't be written in.

    Example:
        >>> record = efface.evaluate(model, edit, "out/cat", per_group=16)  # doctest: +SKIP
    """
    check_strength(strength)
    check_choice("attacks", attacks, get_args(Attacks))
    check_choice("sampler", sampler, SAMPLERS)
    check_share(fraction)
    check_trackers(track, track_dir)
    opening, folder, named = open_later(model), Path(out), str(suite)
    if named:
        check_suite(named)
        if needs_world(named):
            locate(opening.name)  # refuses a model of another make before anything is made
    from ..evaluation import protocols
    from ..evaluation.evaluate import Settings
    from ..evaluation.evaluate import evaluate as measure

    rules = protocols.find_protocol(protocol) if protocol else None
    case = Case.of(opening, edit, folder)
    chosen = case.find_suite(_name_suite(case, named, rules), per_group, groups, asks, sizes, fraction)
    if on_suite:
        on_suite(chosen)
    chosen, judges = _choose_scorers(case, chosen, scorers, rules)
    steps, guidance = _choose_drawing(case, rules, steps, guidance)
    settings = Settings(steps, guidance, strength, sampler, scorer_timeout)
    if attacks == "standard":
        check_attackable(chosen, judges, settings)
    opened = open_to_judge(opening)
    with show_progress_with_steps(progress, opened) as report:
        where = Path(images) if images else None
        record = measure(opened, case.file, chosen, judges, folder, settings, where, report, protocol=rules)
        if attacks == "standard":
            attack_standard(opened, case, chosen, judges, folder, settings, report)
    _track_rates(opening.name, record, track, track_dir)
    return record


def _choose_drawing(
    case: Case, rules: Protocol | None, steps: int | None, guidance: float | None
) -> tuple[int | None, float | None]:
    """The steps and the guidance: as asked for, or the protocol's where the model has no world of its own."""
    if not rules or case.known:
        return steps, guidance
    return rules.steps if steps is None else steps, rules.guidance if guidance is None else guidance


def _track_rates(model: str, record: Record, track: Track, track_dir: str | Path) -> None:
    """Sends all rates of an evaluation to the trackers, at step 0."""
    facts = {"model": model, "method": record.method, "targets": record.targets, "suite": record.suite.name}
    with open_trackers(track, f"evaluate-{to_file_name((record.method, *record.targets))}", facts, track_dir) as log:
        log(name_rates(record), 0)


def check_evaluation(
    model: Model | LazyModel | str | Path,
    request: Erasure,
    suite: str | Path = "",
    *,
    asks: str = "",
    scorers: Sequence[str | Judge] = (),
    protocol: str = "",
    sizes: Mapping[str, int] | None = None,
    fraction: float = 1.0,
) -> tuple[Suite, list[Judge]]:
    """The suite and the scorers for an edit that does not exist yet; arguments and errors are those of `evaluate`."""
    from ..evaluation import protocols

    check_share(fraction)
    if named := str(suite):
        check_suite(named)
    case, rules = Case.from_request(model, request), protocols.find_protocol(protocol) if protocol else None
    if named and needs_world(named):
        locate(case.model.name)
    made = case.find_suite(_name_suite(case, named, rules), asks=asks, sizes=sizes, fraction=fraction)
    return _choose_scorers(case, made, scorers, rules)


def _name_suite(case: Case, named: str, rules: Protocol | None) -> str:
    """The suite's name: the one that is asked for, or the protocol's; "" where the case's own is taken."""
    if named or not rules:
        return named
    return rules.choose_suite(choose_suite(case.request, case.known) if case.known else None, case.request.targets)


def _choose_scorers(
    case: Case, suite: Suite, asked: Sequence[str | Judge], rules: Protocol | None
) -> tuple[Suite, list[Judge]]:
    """The suite as the protocol draws it, and the scorers, which are checked to be able to judge it."""
    from ..evaluation.evaluate import check_scorers

    suite = rules.adjust(suite) if rules else suite
    judges = _build_scorers(case, suite, asked, rules)
    check_scorers(judges, suite, rules)
    return suite, judges


def _build_scorers(case: Case, suite: Suite, asked: Sequence[str | Judge], protocol: Protocol | None) -> list[Judge]:
    """The scorers that are asked for, or else those of the model or the protocol; and the protocol's own ones."""
    from ..evaluation.evaluate import check_scorers, has_number
    from ..evaluation.metrics import name_kind
    from ..scorers.base import TooFew, require_declared

    name, known = case.model.name, case.known
    theirs = protocol.scorers if protocol else ()
    own = () if known or not protocol else protocol.judges
    found = build_judges(name, suite, asked or own, known) if asked or own or known or not theirs else []
    if asked and (silent := [s for s in found if not has_number(s, suite.rows)]):
        raise ValueError(
            f"scorer {silent[0].name} knows about {silent[0].question}, which no row of suite {suite.spec.name} "
            "asks about, so its numbers could not be shown; leave it out"
        )
    for scorer in found:
        require_declared(scorer)
    given = {*(s.name for s in found), *(name_kind(s) for s in found)}
    left = [words for words in theirs if words not in given]
    for scorer in build_judges(name, suite, left, known) if left else []:
        try:
            check_scorers([scorer], suite, protocol)
            found.append(scorer)
        except TooFew as error:
            warnings.warn(f"{error}; left out", stacklevel=2)
    return found
