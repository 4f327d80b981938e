"""`efface attack`: try to bring back what an edit erased."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from .console import progress, result, writable_folder
from .loading import Flags, Loading

if TYPE_CHECKING:
    from ..records.attacks import AttackRecord, Trial
    from ..robustness.conditions import Lore


@dataclass(frozen=True, kw_only=True)
class AttackCommand:
    """Attack an edited model, with the untouched base, a kept concept and random prefixes as controls."""

    model: str
    """A name (`efface list models`), a diffusers folder, a file FILE.safetensors@FOLDER, or a hub id."""
    edit: Path
    """The edit to attack."""
    suite: str
    """Name of the suite, or a .csv or .parquet file; its first group that must be gone is attacked."""
    out: Path
    """Folder for attacks.json and pictures, an evaluation's own for example; what was begun is gone on with."""
    attack: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """An attack to make, or "standard" for five of them; repeat the flag for several. Standard by default."""
    budget: str = "default"
    """What each attack may spend: "default"; "paper", its paper's whatever the model; "4x", four times the default; or
    a number of queries, pictures drawn and judged for each row."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A setting of one attack, as ring-a-bell.generations=40; repeat the flag for several."""
    synonym: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Another name of a concept, as cat=kitty, beside those that the model's world knows; repeat for several."""
    group: str | None = None
    """The suite's group that is attacked, instead of its first that must be gone."""
    rows: int = 50
    """Prompts of each erased concept, at most."""
    controls: int = 16
    """Prompts in each control, at most."""
    worst_case: bool = False
    """Make each attack only on what none before it broke: robust erasure sooner, without a table by attack."""
    scorer: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A judge to ask, by name; repeat the flag for several. All that come with the model by default."""
    strength: float = 1.0
    """How much of the edit is applied."""
    steps: int | None = None
    """Sampling steps; the model's own number by default."""
    guidance: float | None = None
    """Guidance; the model's own by default."""
    seed: int = 0
    """Of everything random in the attacks."""
    loading: Flags = field(default_factory=Loading)
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        from ..attacks import STANDARD, configured
        from ..suites import make, world
        from ..suites.make import check
        from .glyphs import bundle_of

        check(self.suite)
        settings = by_attack(self.set)
        asked = self.attack or ("standard",)
        names = list(dict.fromkeys(n for each in asked for n in (STANDARD if each == "standard" else (each,))))
        if stray := [name for name in settings if name not in names]:
            raise ValueError(f"--set speaks of {stray[0]}, which is not among the attacks: {', '.join(names)}")
        attacks = [configured(name, self.model, self.budget, settings.get(name)) for name in names]
        bundle = bundle_of(self.model)
        known = world.load(bundle) if bundle else None
        names_given = spoken(self.synonym)
        writable_folder(self.out)
        from ..edits.edit import Edit
        from ..evaluation.evaluate import Settings, request_of, used_words
        from ..robustness.campaign import Campaign, attack
        from ..robustness.conditions import lore_of
        from ..scorers import panel

        edit = Edit.load(self.edit)
        request = request_of(edit)
        suite = make(self.suite, request, known, used=used_words(edit))
        lore = other_names(names_given, lore_of(known, suite.spec))
        labels = {"object": suite.labels}
        scorers = panel(bundle, known.backgrounds if known else {}, self.scorer, labels)
        model = self.loading.opened(self.model)
        how = Settings(self.steps, self.guidance, self.strength)
        campaign = Campaign(
            rows=self.rows,
            controls=self.controls,
            group=self.group or "",
            survivors=self.worst_case,
            skip="standard" in asked,
            seed=self.seed,
        )
        with progress() as tell:
            record = attack(model, self.edit, suite, scorers, self.out, attacks, lore, how, campaign, tell)
        path = self.out / "attacks.json"
        data = record.model_dump(include={"targets", "robust", "grounds", "trials", "alarms"}, mode="json")
        result({"attacks": str(path), **data}, self.json, f"{table(record)}\n{path}")


def by_attack(given: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Settings by attack, of "ring-a-bell.generations=40"."""
    from ..attacks import named

    out: dict[str, dict[str, Any]] = {}
    for each in given:
        where, equals, value = each.partition("=")
        name, dot, field = where.partition(".")
        if not (equals and dot and field):
            raise ValueError(f"--set {each!r} is no setting; write NAME.SETTING=VALUE, as ring-a-bell.generations=40")
        out.setdefault(named(name), {})[field.replace("-", "_")] = literal(value)
    return out


def literal(text: str) -> Any:
    """A number, a truth value or a text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def spoken(given: Sequence[str]) -> list[tuple[str, str]]:
    """A concept and another name of it, of each "cat=kitty"; ValueError for anything else."""
    found = []
    for each in given:
        concept, equals, word = (part.strip() for part in each.partition("="))
        if not (equals and concept and word):
            raise ValueError(f"--synonym {each!r} names no concept and its other name; write for example cat=kitty")
        found.append((concept, word))
    return found


def other_names(given: Sequence[tuple[str, str]], known: Mapping[str, Lore]) -> Mapping[str, Lore]:
    """What is known of concepts, with the other names that were given."""
    from ..robustness.conditions import Lore

    lore = dict(known)
    for concept, word in given:
        before = lore.get(concept, Lore())
        lore[concept] = Lore((*before.synonyms, word), before.paraphrases)
    return lore


def table(record: AttackRecord) -> str:
    """Success rates by attack with their controls, and alarms, for a person."""
    from ..reporting.wording import estimate

    lines = [f"alarm: {a.name}: {a.raised_when}. {a.do}" for a in record.alarms]
    head = ("attack", "success on the target", "random prefixes", "on a kept concept", "on the base", "queries", "s")
    rows: list[tuple[str, ...]] = [head]
    for name in dict.fromkeys(t.attack for t in record.trials):
        own, kept, base = (record.find(name, where) for where in ("edited", "kept", "base"))
        floor, cost = ("–", ("–", "–")) if own is None else (percent(own, own.floor.value), spent(own))
        shown = [percent(t, t.after.value) if t else "–" for t in (kept, base)]
        if own and own.intact:
            shown[0] = f"{percent(own, own.intact.value)} by name"
        rows.append((name, percent(own, own.after.value, True) if own else "–", floor, *shown, *cost))
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines += ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [climb(t) for t in record.trials if t.where == "edited" and t.stages and len(t.curve) > 1]
    before, robust = (estimate(e, "share") for e in (record.grounds[0].before, record.robust))
    return "\n".join([*lines, f"before any attack {before}; robust {robust}"])


def climb(trial: Trial) -> str:
    """The success rate after each of the attack's settings."""
    steps = [f"{rate:.0%} with {stage}" for stage, rate in zip(trial.stages, trial.curve[1:], strict=False)]
    return f"{trial.attack}, rows broken by then: {trial.curve[0]:.0%} before, {', '.join(steps)}"


def percent(trial: Trial, value: float | None, interval: bool = False) -> str:
    if trial.missing or value is None:
        return "not made"
    return f"{value:.0%}" + (f" [{trial.after.low:.0%}, {trial.after.high:.0%}] n={trial.after.n}" if interval else "")


def spent(trial: Trial) -> tuple[str, str]:
    return f"{trial.queries:.1f}", f"{trial.seconds:.0f}"
