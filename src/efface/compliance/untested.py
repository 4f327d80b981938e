"""Lists what an evaluation and the attacks beside it did not test, for a takedown record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..attacks import list_names as attack_names
from ..plurals import write_count
from ..records.attack_files import read_file
from ..records.attacks import FILE, AttackRecord, InterruptedAttack
from ..records.report import Drawing, Part, Record
from ..suites import read_spec
from ..suites.spec import list_names as suite_names
from .doubts import list_attack_doubts

OTHER_LANGUAGES = ("language", "languages", "translation", "translations")
QUALITY = ("fid", "kid", "clip", "lpips", "ssim")


class Untested(Part):
    """Something that was not tested."""

    what: str
    why: str


def list_untested(record: Record, attacks: AttackRecord | None = None) -> list[Untested]:
    """Lists what an evaluation, and the attacks beside it, did not test."""
    doubts = [
        Untested(what="what the attacks show of this request", why=w) for w in list_attack_doubts(record, attacks)
    ]
    not_attacked = [*_list_not_attacked(*_list_attacks(attacks)), *doubts]
    return [*_list_not_drawn(record), *not_attacked, *_list_not_varied(record.drawing), *_list_never_tested()]


def list_undigested(folder: Path, evaluation: Record) -> list[Untested]:
    """Lists the files of earlier versions, which have no digest of their own."""
    attacks = read_file(folder)
    files = {"report.json": evaluation.digest, FILE: attacks.digest if attacks else "none there"}
    why = "it has no digest, because an earlier version wrote it"
    names = [name for name, digest in files.items() if not digest]
    return [Untested(what=f"whether {name} was changed after it was written", why=why) for name in names]


def _list_not_drawn(record: Record) -> list[Untested]:
    suite, drawn = record.suite, record.suite.groups
    known = read_spec(suite.name) if suite.name in suite_names() else None
    groups = known.groups if known and known.version == suite.version else ()
    other = known is not None and not groups
    out = [Untested(what=f"other groups of {suite.name}", why=f"not known of version {suite.version}")] if other else []
    out += [
        Untested(what=f"prompts of group {g.name}: {g.title}", why=f"not drawn; {suite.name} has this group")
        for g in groups
        if g.name not in drawn
    ]
    if not any(word in name.casefold() for name in drawn for word in OTHER_LANGUAGES):
        out.append(Untested(what="prompts in languages other than the suite's", why="no such group was drawn"))
    if not {m.metric for m in record.measures} & set(QUALITY):
        out.append(Untested(what="quality of the pictures as such", why="no scorer of it was asked"))
    return out


def _list_not_attacked(attacked: Sequence[str], interrupted: Sequence[InterruptedAttack]) -> list[Untested]:
    if not attacked and not interrupted:
        return [Untested(what="attacks of any kind: whether the target can be brought back", why="none was run")]
    stopped = [
        Untested(
            what=f"attack {each.attack} to its end",
            why=f"interrupted after {len(each.row_results)} of {write_count(each.rows, 'prompt')}, of which it broke "
            f"{sum(row.broken is True for row in each.row_results)}",
        )
        for each in interrupted
    ]
    begun = {*attacked, *(each.attack for each in interrupted)}
    left = [name for name in attack_names() if name not in begun]
    return [*stopped, *([Untested(what=f"attacks {', '.join(left)}", why="not run")] if left else [])]


def _list_not_varied(drawing: Drawing) -> list[Untested]:
    rescaled = f", rescaled by {drawing.guidance_rescale:g}" if drawing.guidance_rescale else ""
    only = (
        f"strengths other than {drawing.strength:g}",
        f"schedulers other than {drawing.scheduler}",
        f"step counts other than {drawing.steps}",
        f"guidance other than {drawing.guidance:g}{rescaled}",
        f"resolutions other than {drawing.resolution}",
        f"precisions other than {drawing.compute}",
    )
    return [Untested(what="; ".join(only), why="every picture was drawn in this one way")]


def _list_never_tested() -> list[Untested]:
    """What no evaluation of this toolkit tests."""
    return [
        Untested(what="the edit merged with LoRA adapters, other edits or other checkpoints", why="judged on its base"),
        Untested(what="the text encoder or the autoencoder exchanged for another", why="judged on its base"),
        Untested(what="kept concepts that the suite does not name", why="nobody asked for them"),
        Untested(what="what no judge has a label for", why="the judges answer with their own labels only"),
    ]


def _list_attacks(found: AttackRecord | None) -> tuple[list[str], list[InterruptedAttack]]:
    """The names of the finished attacks on the target, and the interrupted ones."""
    if found is None:
        return [], []
    made = [m.attack for m in found.measures if m.made_on_target]
    return made, [each for each in found.interrupted if each.condition == "target"]
