"""`efface attack`: try to bring back what an edit erased."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import tyro

from ..files import check_folder
from ..plurals import write_percent
from .console import print_result, show_progress, tell_plan
from .loading import Drawing, Loading

if TYPE_CHECKING:
    from ..records.attacks import AttackMeasure, AttackRecord


@dataclass(frozen=True, kw_only=True)
class AttackCommand:
    """Attack an edited model, with the untouched base, a kept concept and random prefixes as controls."""

    kept: ClassVar[str] = (
        "finished batches are kept in --out and count in every record; the same command continues from there"
    )
    example: ClassVar[str] = "efface attack --model glyphs --edit cat.safetensors --suite glyphs-objects --out out/cat"
    model: str
    """A name (`efface list models`), a diffusers folder, a file FILE.safetensors@FOLDER, or a hub id."""
    edit: Path
    """The edit to attack."""
    suite: str = ""
    """Name of the suite, or a file of prompts; by default the one that suits the model, if it comes with any. The
    attacks are made on its first group of prompts for the erased concept."""
    asks: str = ""
    """What every row of a suite's file asks for; give the same value as to `efface evaluate`."""
    out: Path
    """Folder for attacks.json and pictures, for example that of the evaluation; attacks that were stopped there are
    continued."""
    attack: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """An attack to make, or "standard" for five of them; repeat the flag for several. Standard by default."""
    budget: str = "default"
    """Budget of each attack: "default"; "paper", the budget of its paper whatever the model; "4x", four times the
    default; or a number of queries, that is, of pictures drawn and judged for each prompt."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A setting of one attack, as ring-a-bell.generations=40; repeat the flag for several."""
    synonym: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Another name of a concept, as cat=kitty, in addition to those known for the model; repeat the flag for
    several."""
    group: str | None = None
    """The suite's group that is attacked, instead of its first group for the erased concept."""
    rows: int = 50
    """Largest number of prompts of each erased concept."""
    controls: int = 16
    """Largest number of prompts in each control."""
    worst_case: bool = False
    """Make each attack only on the prompts that no attack before it broke: the worst-case rate is known sooner, but
    single attacks cannot be compared."""
    scorer: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A judge to ask, by name; repeat the flag for several. All that come with the model by default."""
    seed: int = 0
    """Seed of everything random in the attacks."""
    max_memory: str = ""
    """Most memory that gradient-based attacks may use, such as 8GB; with less memory they process fewer prompts at
    once. By default all free memory."""
    scorer_timeout: float = 600.0
    """Time limit in seconds for one call of a scorer. Pictures without an answer by then are unscored, and are
    counted as such."""
    json: bool = False
    """Print the result as JSON."""
    drawing: Drawing = field(default_factory=Drawing)
    loading: Loading = field(default_factory=Loading)

    def run(self) -> None:
        check_folder(self.out)
        from ..api.attacking import attack

        with show_progress() as report:
            record = attack(
                self.loading.open_model_later(self.model),
                self.edit,
                self.out,
                self.suite,
                asks=self.asks,
                attacks=self.attack or "standard",
                budget=self.budget,
                settings=group_by_attack(self.set),
                synonyms=parse_synonyms(self.synonym),
                scorers=self.scorer,
                group=self.group or "",
                rows=self.rows,
                controls=self.controls,
                worst_case=self.worst_case,
                strength=self.drawing.strength,
                steps=self.drawing.steps,
                guidance=self.drawing.guidance,
                scorer_timeout=self.scorer_timeout,
                seed=self.seed,
                max_memory=self.max_memory,
                progress=report,
                on_plan=tell_plan,
            )
        path = self.out / "attacks.json"
        data = record.model_dump(include={"targets", "robust", "conditions", "measures", "alarms"}, mode="json")
        print_result({"attacks": str(path), **data}, self.json, f"{format_table(record)}\n{path}")


def group_by_attack(given: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Parses the settings of each attack from flags such as "ring-a-bell.generations=40"; ValueError for other text."""
    from ..attacks import find_name

    out: dict[str, dict[str, Any]] = {}
    for each in given:
        where, equals, value = each.partition("=")
        name, dot, field = where.partition(".")
        if not (equals and dot and field):
            raise ValueError(
                f"--set {each!r} is not a setting; write NAME.SETTING=VALUE, as ring-a-bell.generations=40"
            )
        out.setdefault(find_name(name), {})[field.replace("-", "_")] = parse_literal(value)
    return out


def parse_literal(text: str) -> Any:
    """Parses a number, a truth value or another literal of Python; other text is returned as it is."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def parse_synonyms(given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Parses other names of each concept from flags such as "cat=kitty"; ValueError for other text."""
    found: dict[str, tuple[str, ...]] = {}
    for each in given:
        concept, equals, word = (part.strip() for part in each.partition("="))
        if not (equals and concept and word):
            raise ValueError(
                f"--synonym {each!r} does not give a concept and another name; write for example cat=kitty"
            )
        found[concept] = (*found.get(concept, ()), word)
    return found


def format_table(record: AttackRecord) -> str:
    """Writes the success rate of each attack beside its controls, and the alarms, as text."""
    from ..reporting.wording import format_estimate

    lines = [f"alarm: {a.name}: {a.raised_when}. {a.do}" for a in record.alarms]
    head = ("attack", "success on the target", "random prefixes", "on a kept concept", "on the base", "queries", "s")
    rows: list[tuple[str, ...]] = [head]
    for name in dict.fromkeys(t.attack for t in record.measures):
        own, kept, base = (record.find(name, where) for where in ("target", "control-kept", "control-base"))
        baseline, cost = ("–", ("–", "–")) if own is None else (format_rate(own, own.baseline.value), format_cost(own))
        shown = [format_rate(t, t.after.value) if t else "–" for t in (kept, base)]
        if own and own.intact:
            shown[0] = f"{format_rate(own, own.intact.value)} by name"
        rows.append((name, format_rate(own, own.after.value, True) if own else "–", baseline, *shown, *cost))
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines += ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [format_stages(t) for t in record.measures if t.condition == "target" and t.stages and len(t.curve) > 1]
    for searched in dict.fromkeys(t.searched for t in record.measures if t.searched):
        names = dict.fromkeys(t.attack for t in record.measures if t.searched == searched)
        lines.append(f"{', '.join(names)} searched {searched}")
    before, robust = (format_estimate(e, "share") for e in (record.conditions[0].before, record.robust))
    return "\n".join([*lines, f"before any attack {before}; robust {robust}"])


def format_stages(measure: AttackMeasure) -> str:
    """Writes the success rate after each of the attack's settings as one line."""
    steps = [
        f"{write_percent(rate)} with {stage}" for stage, rate in zip(measure.stages, measure.curve[1:], strict=False)
    ]
    return f"{measure.attack}, rows broken by then: {write_percent(measure.curve[0])} before, {', '.join(steps)}"


def format_rate(measure: AttackMeasure, value: float | None, interval: bool = False) -> str:
    if measure.missing or value is None:
        return "not made"
    low, high = write_percent(measure.after.low), write_percent(measure.after.high)
    return write_percent(value) + (f" [{low}, {high}] n={measure.after.n}" if interval else "")


def format_cost(measure: AttackMeasure) -> tuple[str, str]:
    return f"{measure.queries:.1f}", f"{measure.seconds:.0f}"
