"""The stages of a takedown: try each method, choose the best, attack, audit and export it; each can be resumed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import hash_file, write_whole
from ..methods import find_capabilities
from ..suites.drafting import Kind, list_other_names
from .attacking import attack
from .auditing import audit
from .erasing import erase
from .evaluating import evaluate
from .exporting import export
from .progress import STEPS, Report

if TYPE_CHECKING:
    from ..concept import Erasure
    from ..models.base import Model
    from ..planning.plan import Plan
    from ..records.attacks import AttackRecord
    from ..records.report import Record
    from ..reporting.verdict import ReportVerdict
    from ..suites.spec import Suite
    from ..suites.world import World
    from .takedown_plan import Profile

RESULT = "\n## Result\n"
"""The heading of the verdict in an export's card."""
AUDITORS = ("clip", "classifier")
"""The judges that an audit can use: they know any word, or have labels of their own."""


@dataclass(frozen=True)
class Trial:
    """A method that was tried, with its edit and its evaluation."""

    method: str
    edit: Path
    folder: Path
    """The folder of its evaluation."""
    record: Record
    verdict: ReportVerdict


@dataclass(frozen=True)
class ChosenSuite:
    """The suite that judges a takedown, cut to its profile."""

    name: str
    """Its name, or its file."""
    suite: Suite
    per_group: int | None
    """The number of pictures in each group; None where the suite has its own numbers."""
    groups: tuple[str, ...]
    """The groups that are drawn; all where none is named."""
    draft: Path | None = None
    """The file, where this call drafted it."""

    def remove_draft(self) -> None:
        """Removes what this call drafted, with its folder if that is empty; a file that was there before stays."""
        if self.draft:
            _remove_draft(self.draft)


@contextmanager
def refusing_draft(file: Path) -> Iterator[None]:
    """Removes a suite that is drafted inside the block if the block raises: a later request would be judged by it."""
    there = file.exists()
    try:
        yield
    except BaseException:
        if not there and file.is_file():
            _remove_draft(file)
        raise


def _remove_draft(file: Path) -> None:
    file.unlink()
    if not any(file.parent.iterdir()):
        file.parent.rmdir()


@dataclass(frozen=True)
class Work:
    """What all stages of a takedown need to know."""

    model: Model
    erasure: Erasure
    kind: Kind
    known: World | None
    """The model's world, where it names every target."""
    out: Path
    chosen: ChosenSuite
    scorers: tuple[str, ...]
    how: Profile
    signed: dict[str, str]
    """What stands in the record beside the numbers: its note, who made the request, who answers it."""
    settings: dict[str, dict[str, Any]]
    """Arguments of single methods, by the method's name."""
    report: Report


def choose_trial(trials: Sequence[Trial]) -> Trial:
    """Chooses the method with the best verdict, and among equal verdicts the one with the best balance.

    The balance is the target's ESR-1 minus the largest loss of PSR-1 among the groups that should be preserved.
    """
    order = ("ready", "undecided", "not ready")
    return min(trials, key=lambda trial: (order.index(trial.verdict.outcome), -_weigh(trial.record)))


def _weigh(found: Record) -> float:
    heads = found.list_headlines()
    gone = [m.edited.value or 0.0 for m in heads if m.metric == "esr1"]
    lost = [m.drop.value for m in heads if m.metric == "psr1" and m.drop]
    return min(gone, default=0.0) - max(lost, default=0.0)


def name_stages(report: Report, what: str) -> Report:
    """Reports progress under names that begin with `what`, so that the same stages of two methods have different
    names."""
    return lambda stage, done, total: report(stage if stage == STEPS else f"{what}: {stage}", done, total)


def try_method(work: Work, method: str, on_memory: Callable[[Plan], None] | None) -> Trial:
    """Fits and evaluates one method; an edit that is there already is kept."""
    from ..reporting.verdict import build_verdict

    place = work.out / method
    file = place / "edit.safetensors"
    if not file.is_file():
        place.mkdir(parents=True, exist_ok=True)
        trained = find_capabilities(method).kind in ("trained", "in stages")
        edit = erase(
            work.model,
            work.erasure,
            method,
            checkpoint=place / "checkpoint" if trained else None,
            progress=work.report,
            on_plan=on_memory,
            **work.settings.get(method, {}),
        )
        edit.save(file)
    folder = place / "evaluation"
    found = evaluate(
        work.model,
        file,
        folder,
        work.chosen.name,
        scorers=work.scorers,
        per_group=work.chosen.per_group,
        groups=work.chosen.groups,
        images=work.out / "images",
        progress=name_stages(work.report, method),
    )
    return Trial(method, file, folder, found, build_verdict(found))


def attack_trial(work: Work, best: Trial) -> AttackRecord | None:
    """Attacks the best edit; returns None if the untouched model never shows the concept."""
    from ..robustness.conditions import NothingToAttack

    how = work.how
    names = {target: list_other_names(target, work.kind) for target in work.erasure.targets}
    called = {target: words for target, words in names.items() if words} if work.known is None else {}
    nameless = _list_nameless(work, called)
    if nameless and "synonyms" in how.attacks:
        warnings.warn(f"synonyms is not among the attacks: no other word is known for {nameless[0]!r}", stacklevel=2)
    try:
        return attack(
            work.model,
            best.edit,
            best.folder,
            work.chosen.name,
            attacks=tuple(a for a in how.attacks if a != "synonyms" or not nameless),
            synonyms=called,
            budget=how.budget,
            scorers=work.scorers,
            rows=how.rows,
            controls=how.controls,
            progress=name_stages(work.report, f"attacks on {best.method}"),
        )
    except NothingToAttack as error:
        warnings.warn(f"no attack was made: {error}", stacklevel=2)
        return None


def _list_nameless(work: Work, called: Mapping[str, Sequence[str]]) -> list[str]:
    """The targets for which no other word is known, from the world of model or suite or from their own names."""
    from ..robustness.conditions import find_aliases

    aliases = find_aliases(work.known, work.chosen.suite.spec)
    known = {name for name, words in aliases.items() if words.synonyms or words.paraphrases}
    return [target for target in work.erasure.targets if target not in known and target not in called]


def audit_trial(work: Work, best: Trial) -> None:
    """Audits what else the edit damaged, unless this edit was audited here before."""
    from ..records.audit import read_audit

    place = work.out / best.method / "audit"
    if (place / "audit.json").is_file() and read_audit(place).drawing.edit == hash_file(best.edit):
        return
    scorers = tuple(s for s in work.scorers if s.partition(":")[0].partition(",")[0] in AUDITORS)
    report = name_stages(work.report, f"audit of {best.method}")
    audit(work.model, best.edit, place, scorers=scorers, progress=report, **work.how.audit)


def describe_no_export(best: Trial, trials: Sequence[Trial]) -> str:
    """Says why an answer has no export, and which of the methods that were tried changes weights."""
    from ..edits.edit import Edit

    others = [t.method for t in trials if t is not best and not Edit.load(t.edit).meta.get("guide")]
    instead = others[0] if others else "eap"
    return (
        f"There is no export: the edit of {best.method} is a guide, which acts only while efface draws; other tools, "
        f"and whoever has the model's files, still draw {', '.join(best.record.targets)}; with --method {instead}, in "
        "another --out, the weights change."
    )


def require_own_export(work: Work, best: Trial) -> None:
    """Checks, before anything is attacked, that an export that is there already is of the edit that was judged.

    Raises:
        ValueError: it is of another edit, such as one that was fitted here before.
    """
    from ..models.loading import RECORD
    from ..records.export import read_export

    place = work.out / best.method / "export"
    if not place.exists():
        return
    said = read_export(place / RECORD).get("edit_sha256")
    if said and said != (found := hash_file(best.edit)):
        raise ValueError(
            f"{place} is of another edit than {best.edit} (sha256 {said[:16]}… and {found[:16]}…); move it away, and "
            "run the same command again"
        )


def export_trial(work: Work, best: Trial, verdict: ReportVerdict) -> dict[str, Path]:
    """Exports the edited model to a folder whose card has the verdict; an edit without weights has no export."""
    from ..edits.edit import Edit

    place = work.out / best.method / "export"
    try:
        Edit.load(best.edit).check_exportable()
    except ValueError:  # a guide acts while drawing: its file is all there is to hand on
        return {}
    if not place.exists():
        export(work.model, best.edit, place)
    card, policy = place / "README.md", f"By the rules of `efface verify --policy {verdict.policy}`:"
    text = card.read_text(encoding="utf-8").partition(RESULT)[0].rstrip()
    write_whole(card, f"{text}\n{RESULT}\n{policy} {verdict.sentence}\n")
    return {"export": place}
