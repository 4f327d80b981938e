"""`efface evaluate`: draw a suite with and without an edit, and judge it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from . import glyphs
from .console import progress, result, warn, writable_folder
from .loading import Flags, Loading

if TYPE_CHECKING:
    from ..concept import Erasure
    from ..evaluation.protocols import Protocol
    from ..records.report import Record
    from ..scorers import Judge
    from ..suites.spec import Suite
    from ..suites.world import World


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Draw a suite with the untouched base and under an edit, judge every picture, and write the rates."""

    model: str
    """A name (`efface list models`), a diffusers folder, a file FILE.safetensors@FOLDER, or a hub id."""
    edit: Path
    """The edit to judge."""
    out: Path
    """Folder for pictures, scores and report.json; one that was begun is gone on with."""
    suite: str = ""
    """Name of the suite (`efface list suites`), or a .csv or .parquet file; the protocol's own by default."""
    protocol: str = ""
    """A published way to evaluate, with its suite, scorers and aggregates: esr-psr, ner, canvas or ddpm-class."""
    per_group: int | None = None
    """Pictures in each group of the suite instead of its own numbers."""
    group: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A group of the suite to evaluate; repeat the flag for several. All by default."""
    scorer: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A scorer to ask: one that comes with the model, by name, or any KIND[:FOLDER_OR_HUB_ID][,SETTING=VALUE], such as
    classifier:microsoft/resnet-50 or nudenet,threshold=0.6 (`efface list scorers`); repeat the flag for several. All
    that come with the model by default."""
    attacks: Literal["none", "standard"] = "none"
    """Attacks to make on the edited model afterwards, with their controls; `efface attack` has them in full."""
    images: Path | None = None
    """Folder for the pictures; evaluations that share one draw the base once. OUT/images by default."""
    strength: float = 1.0
    """How much of the edit is applied."""
    steps: int | None = None
    """Sampling steps; the protocol's or the model's own number by default."""
    guidance: float | None = None
    """Guidance; the protocol's or the model's own by default."""
    sampler: Literal["own", "ddim", "dpm", "unipc"] = "own"
    """The model's own scheduler, or another on its noise levels; dpm and unipc need fewer steps."""
    loading: Flags = field(default_factory=Loading)
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        from ..suites import world
        from ..suites.make import check, needs_world
        from ..suites.world import locate

        if not (self.suite or self.protocol):
            raise ValueError("nothing to draw: give --suite, a name or a .csv file, or --protocol")
        if self.suite:
            check(self.suite)
        needed = self.suite and needs_world(self.suite)
        bundle = locate(self.model) if needed else glyphs.bundle_of(self.model)
        known = world.load(bundle) if bundle else None
        writable_folder(self.out)
        from ..edits.edit import Edit
        from ..evaluation import protocols
        from ..evaluation.evaluate import Settings, evaluate, ready, request_of

        edit = Edit.load(self.edit)
        protocol = protocols.get(self.protocol) if self.protocol else None
        suite = self._suite(edit, request_of(edit), known, protocol)
        scorers = self._scorers(bundle, known, suite, protocol)
        ready(scorers, suite, protocol)
        model = self.loading.opened(self.model)
        theirs = protocol if protocol and not bundle else None
        steps, guidance = (theirs.steps, theirs.guidance) if theirs else (None, None)
        settings = Settings(
            steps if self.steps is None else self.steps,
            guidance if self.guidance is None else self.guidance,
            self.strength,
            self.sampler,
        )
        if self.attacks == "standard":
            attackable(suite, scorers, settings)
        with progress() as tell:
            record = evaluate(
                model, self.edit, suite, scorers, self.out, settings, self.images, tell, protocol=protocol
            )
            if self.attacks == "standard":
                attacked(model, self.edit, suite, scorers, self.out, settings, known, tell)
        path = self.out / "report.json"
        result({"report": str(path), **summary(record)}, self.json, f"{headlines(record)}\n{path}")

    def _suite(self, edit: Any, request: Erasure, known: World | None, protocol: Protocol | None) -> Suite:
        """The rows to draw."""
        from ..evaluation.evaluate import used_words
        from ..suites import make

        name = self.suite
        if not name and protocol:
            name = protocol.suite_for(glyphs.suite_for(request, known) if known else None)
        suite = make(name, request, known, per_group=self.per_group, only=self.group, used=used_words(edit))
        return protocol.adjust(suite) if protocol else suite

    def _scorers(
        self, bundle: Path | None, known: World | None, suite: Suite, protocol: Protocol | None
    ) -> list[Judge]:
        """Those asked for, or else those of the model or the protocol; and what the protocol always asks."""
        from ..evaluation.evaluate import ready
        from ..scorers import panel
        from ..scorers.base import TooFew

        labels: dict[str, Sequence[str]] = {"object": suite.labels, "style": suite.labels}
        labels |= {"object": known.names, "style": known.styles} if known else {}
        grounds = known.backgrounds if known else {}
        theirs = protocol.scorers if protocol else ()
        judges = () if bundle or not protocol else protocol.judges
        asked = self.scorer or judges
        found = panel(bundle, grounds, asked, labels) if asked or bundle or not theirs else []
        for scorer in panel(bundle, grounds, theirs, labels) if theirs else []:
            if scorer.name in [s.name for s in found]:
                continue
            try:
                ready([scorer], suite, protocol)
                found.append(scorer)
            except TooFew as error:
                warn(f"{error}; left out")
        return found


def attackable(suite: Suite, scorers: Sequence[Judge], settings: Any) -> None:
    """ValueError where the standard attacks would find nothing to attack or to judge with, before the evaluation."""
    from ..robustness.campaign import Campaign, check_sampler, jury_of
    from ..robustness.conditions import places

    check_sampler(settings)
    grounds = places(suite, {}, Campaign.rows, Campaign.controls)
    jury_of(scorers, grounds[0].rows[0])


def attacked(
    model: Any,
    edit: Path,
    suite: Suite,
    scorers: Sequence[Judge],
    out: Path,
    settings: Any,
    known: World | None,
    tell: Any,
) -> None:
    """Make the standard attacks, beside the evaluation."""
    from ..attacks import STANDARD, configured
    from ..robustness.campaign import Campaign, attack
    from ..robustness.conditions import lore_of

    made = [configured(name, model.name) for name in STANDARD]
    attack(model, edit, suite, scorers, out, made, lore_of(known, suite.spec), settings, Campaign(skip=True), tell)


def summary(record: Record) -> dict[str, Any]:
    """Headline rates and alarms, for a program."""
    heads = [m.model_dump() for m in record.heads()]
    return {"targets": list(record.targets), "headlines": heads, "alarms": [a.model_dump() for a in record.alarms]}


def headlines(record: Record) -> str:
    """Headline rates with intervals and alarms, for a person."""
    from ..reporting.wording import METRICS, estimate

    lines = [f"alarm: {a.name}: {a.raised_when}. {a.do}" for a in record.alarms]
    for m in record.heads():
        over = "" if m.threshold is None else f" over {m.threshold:g}"
        name = METRICS.get(m.metric, m.metric) + over
        lines.append(f"{name + ', ' + m.group:<28} {estimate(m.edited, m.unit)}   base {estimate(m.base, m.unit)}")
    return "\n".join(lines)
