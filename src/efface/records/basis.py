"""Decides, for all commands, whether results belong together: whether they have the same edit, base, drawing and suite.

The report, the gate and the takedown record read a folder's results here, and evaluations and attacks check here before
they add to a folder. Evaluations of different edits are compared only if they were made in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import find_shared_digest, hash_file
from . import attack_files
from .attacks import AttackRecord
from .report import Drawing, Record, SuitePart, list_differences, read_report

ROWS = "rows.parquet"


@dataclass(frozen=True)
class Basis:
    """What the numbers of a file depend on."""

    drawing: Drawing
    """The hashes of base and edit, the strength, and how pictures are drawn."""
    suite: SuitePart

    @staticmethod
    def of(record: Record | AttackRecord) -> Basis:
        """The basis of a record."""
        return Basis(record.drawing, record.suite)


@dataclass(frozen=True)
class Results:
    """The results in a folder: an evaluation, attacks, or both, which then have the same basis."""

    evaluation: Record | None
    attacks: AttackRecord | None


def read_results(folder: Path) -> Results:
    """Reads the finished results of a folder, and checks that they belong together.

    Raises:
        FileNotFoundError: there is neither a finished evaluation nor attacks.
        ValueError: a file is damaged, was changed, or has an unknown version; attacks have another basis than the
            evaluation; or rows.parquet is not the report's own.
    """
    attacks = attack_files.read_attacks(folder)
    if attacks is not None and not (folder / "report.json").is_file():
        return Results(None, attacks)
    evaluation = read_report(folder)
    require_rows(folder, evaluation)
    if attacks is not None:
        require_together(folder, Basis.of(evaluation), Basis.of(attacks))
    return Results(evaluation, attacks)


def read_evaluation(folder: Path) -> tuple[Record, AttackRecord | None]:
    """Reads the finished evaluation of a folder, and the attacks beside it; errors are those of `read_results`.

    Raises:
        FileNotFoundError: the folder holds no finished evaluation.
    """
    found = read_results(folder)
    return found.evaluation or read_report(folder), found.attacks


def require_rows(folder: Path, record: Record) -> None:
    """Checks that the rows beside a report are its own, unless they are missing or the report names none.

    Raises:
        ValueError: rows.parquet was truncated or changed; the message has both hashes.
    """
    file = folder / ROWS
    if record.rows_file is None or not file.is_file():
        return
    if (found := hash_file(file)) != record.rows_file.sha256:
        raise ValueError(
            f"{file} is not the file that report.json was written with: sha256 {record.rows_file.sha256[:16]}… then, "
            f"{found[:16]}… now; it was cut short or changed, so run the evaluation again, which keeps what is whole"
        )


def require_together(folder: Path, evaluation: Basis, attacks: Basis) -> None:
    """Checks that attacks belong to an evaluation.

    Raises:
        ValueError: they have another edit, base, strength, drawing or suite; the message says what each has.
    """
    if differ := _list_other(evaluation, attacks):
        raise ValueError(
            f"the attacks in {folder} do not belong to the evaluation there: {'; '.join(differ)}. Give attacks on "
            "another edit, or drawn otherwise, a folder of their own"
        )


def require_before_evaluating(folder: Path, drawing: Drawing, suite: SuitePart) -> None:
    """Checks that the attacks in a folder, if any, will belong to a new evaluation there."""
    if attacks := attack_files.read_file(folder):
        require_together(folder, Basis(drawing, suite), Basis.of(attacks))


def require_before_attacking(folder: Path, drawing: Drawing, suite: SuitePart) -> None:
    """Checks that new attacks in a folder will belong to the evaluation there, if any."""
    if (folder / "report.json").is_file():
        require_together(folder, Basis.of(read_report(folder)), Basis(drawing, suite))


def require_edit(record: Record, file: Path) -> None:
    """Checks that a file is the edit that was judged.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is another edit; the message has both hashes.
    """
    if (found := hash_file(file)) != record.drawing.edit:
        raise ValueError(
            f"{file} is not the edit that was judged: its sha256 is {found[:16]}…, and the evaluation was of "
            f"{record.drawing.edit[:16]}…"
        )


def _list_other(evaluation: Basis, attacks: Basis) -> list[str]:
    """The differences between the bases of attacks and their evaluation, in words."""
    one, other = evaluation.drawing, attacks.drawing
    out = []
    if one.edit != other.edit:
        out.append(f"the evaluation is of the edit with sha256 {one.edit[:16]}…, the attacks of {other.edit[:16]}…")
    if not find_shared_digest(one.fingerprint, other.fingerprint):
        bases = [next(iter(each.fingerprint.values()), "none") for each in (one, other)]
        out.append(f"the evaluation is on the base with fingerprint {bases[0][:16]}…, the attacks on {bases[1][:16]}…")
    out += [
        f"{name.replace('_', ' ')} {getattr(one, name)} in the evaluation, {getattr(other, name)} in the attacks"
        for name in Drawing.model_fields
        if name not in ("model", "edit", "fingerprint") and getattr(one, name) != getattr(other, name)
    ]
    suites = [f"{each.suite.name} {each.suite.version}" for each in (evaluation, attacks)]
    return out + ([f"suite {suites[0]} in the evaluation, {suites[1]} in the attacks"] if len({*suites}) > 1 else [])


def require_same_basis(earlier: AttackRecord, basis: Mapping[str, Any]) -> None:
    """Checks that attacks may be added to those of an earlier record.

    Args:
        earlier: the earlier record.
        basis: the basis of the new attacks, by name: `targets`, `suite`, `scorers` and `drawing`.

    Raises:
        ValueError: the earlier attacks were made on another edit, or drawn or judged differently, so that their rates
            can't be in one record.
    """
    for name, now in basis.items():
        before = getattr(earlier, name)
        if _make_comparable(before) != _make_comparable(now):
            raise ValueError(
                f"this folder holds attacks with another {name} ({_describe_difference(before, now)}): a record has "
                "one; give another folder"
            )


def _make_comparable(value: Any) -> Any:
    """A value without what may differ: the place of a model, and which groups of a suite are named."""
    if hasattr(value, "model_dump"):
        return {k: v for k, v in value.model_dump().items() if k not in ("model", "groups", "licence", "source")}
    return value


def _describe_difference(before: Any, now: Any) -> str:
    """The difference in a few words."""
    one, other = _make_comparable(before), _make_comparable(now)
    if isinstance(one, dict):
        keys = [k for k in {**one, **other} if one.get(k) != other.get(k)]
        return "; ".join(f"{key}: {one.get(key)} there, {other.get(key)} now" for key in keys)
    return f"{one} there, {other} now"


def require_comparable(one: Record, other: Record) -> None:
    """Raises ValueError, which says the difference, where two evaluations were not made in the same way.

    Drawing, scorers, rule and declared protocol have to agree, and for one suite also its version, and for the same
    targets also its rows. The targets, the method and the strength may differ, because these are compared.
    """
    skip = [] if other.suite.name == one.suite.name else ["suite"]
    skip += [] if not skip and other.targets == one.targets else ["rows"]
    if different := list_differences(_describe_way(one), _describe_way(other), skip):
        runs = [f"{r.method} on {', '.join(r.targets)}" for r in (one, other)]
        raise ValueError(
            f"{runs[0]} and {runs[1]} were evaluated in different ways ({'; '.join(different[:5])}); evaluate both "
            "in one way to compare them"
        )


def _describe_way(record: Record) -> dict[str, Any]:
    """How an evaluation was made."""
    return {
        "suite": {"name": record.suite.name, "version": record.suite.version},
        "rows": record.rows_digest,
        "drawing": record.drawing.model_dump(exclude={"model", "edit", "strength"}),
        "scorers": record.scorers,
        "rule": record.rule,
        "protocol": record.protocol.model_dump() if record.protocol else None,
    }
