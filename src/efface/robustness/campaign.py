"""Attacks on an edited model: who brings the concept back, how much of that is chance, and what a low rate is worth.

Every attack runs on the erased concept, on a kept concept of the same edited model and on the untouched base; in these
two controls the concept's name is removed from the prompts. Random prefixes with as many queries run beside it on each,
and beside an attack that hands in pictures also the same attack with pictures of another thing. A row that shows the
concept before any attack counts as broken and is not attacked, as in UnlearnDiffAtk.

An evaluation's folder gets `attacks.json` and `attacks/`: a file for each finished batch of rows, the pictures, and
embeddings that words can't say. The same call goes on where it was stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from ..attacks import FLOOR, configured, name_of
from ..attacks.base import Attack
from ..edits.edit import Edit
from ..evaluation.evaluate import Progress, Settings, describe_drawing
from ..files import hash_file, write_whole
from ..models.base import Model
from ..records.attacks import FILE, AttackRecord, Outcome, Where
from ..scorers import Judge
from ..scorers.base import SetScorer
from ..suites.spec import Row, Suite
from .batch import Jury, Range
from .conditions import Lore, Place, lore_of, one_token_words, places
from .results import Evidence, Fights, recorded
from .run import Bout, Fight, no_pictures, plain, portrayed

__all__ = ["Campaign", "Lore", "attack", "check_sampler", "jury_of", "lore_of", "places"]


@dataclass(frozen=True)
class Campaign:
    """How much is attacked."""

    rows: int = 50
    """Prompts of each erased concept."""
    controls: int = 16
    """Prompts in each control."""
    group: str = ""
    """The suite's group that is attacked; its first that must be gone where it is empty."""
    survivors: bool = False
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
    lore: Mapping[str, Lore] | None = None,
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
    grounds = places(suite, lore or {}, campaign.rows, campaign.controls, campaign.group, words)
    jury = jury_of(scorers, grounds[0].rows[0])
    base = Bout(
        range_=Range(model, jury, out / "attacks", settings.steps, settings.guidance),
        edit=None,
        drawing=describe_drawing(model, replace(settings, strength=1.0), ""),
        originals=model.weights,
        portraits={place.concept: no_pictures(model) for place in grounds},
        words=one_token_words(model),
        seed=campaign.seed,
        tell=progress or (lambda stage, done, total: None),
    )
    drawing = describe_drawing(model, settings, hash_file(edit_file))
    edited = replace(base, edit=edit, drawing=drawing)
    with edit.apply(model, settings.strength):
        refused = _refused({"base": base, "edited": edited, "kept": edited}, order, grounds, campaign.skip)

    own, controls = ([p for p in grounds if (p.where == "base") == control] for control in (False, True))
    untouched = _seen(base, own, named=True)
    portraits = portrayed(base, grounds)
    _must_show([p for p in own if p.where == "edited"], untouched["edited"], portraits, model.name)
    own = [place for place in own if len(portraits[place.concept])]
    base = replace(base, portraits=portraits)
    edited = replace(edited, portraits=base.portraits)
    with edit.apply(model, settings.strength):
        named = _seen(edited, own, named=True)
        before = _seen(edited, own, named=False)
        fights, decoys = _fought(edited, order, own, before, refused, campaign.survivors)
        intact = _intact(edited, order, [p for p in own if p.where == "kept"], refused)
    before |= _seen(base, controls, named=False)
    more = _fought(base, order, controls, before, refused, False)
    untouched["base"] = named["base"] = untouched["edited"]
    fights, decoys = fights | more[0], decoys | more[1]
    evidence = Evidence(order, [*own, *controls], untouched, named, before, fights, decoys, intact, campaign.survivors)
    record = recorded(evidence, suite, edit, drawing, jury.identity(), campaign.seed)
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
    floor = named.pop(FLOOR, None) or configured(FLOOR, model)
    return {FLOOR: replace(floor, queries=queries), **named}


def check_sampler(settings: Settings) -> None:
    """ValueError unless the model's own scheduler draws: attacks that go on from states on the way know no other."""
    if settings.sampler != "own":
        raise ValueError(f"attacks draw by the model's own scheduler, not by {settings.sampler}: leave out --sampler")


def jury_of(scorers: Sequence[Judge], row: Row) -> Jury:
    """The judges of what a row asks; ValueError where there is none."""
    judges = tuple(s for s in scorers if not isinstance(s, SetScorer) and s.asks == row.asks)
    if not judges:
        raise ValueError(
            f"no scorer can say whether a picture shows {row.concept}: one that answers {row.asks!r} would, of "
            f"{', '.join(s.name for s in scorers) or 'no scorers'} none does; `efface list scorers` lists them"
        )
    return Jury(judges)


def _refused(
    bouts: Mapping[Where, Bout], order: Mapping[str, Attack], grounds: Sequence[Place], skip: bool
) -> dict[tuple[str, Where], str]:
    """Why which attacks can't be made where.

    Raises:
        ValueError: one can't be made on the erased concept, unless those are to be skipped and another can.
    """
    found: dict[tuple[str, Where], str] = {}
    for name, attack in order.items():
        for place in grounds:
            if attack.brings or place.where == "edited":
                try:
                    attack.check(bouts[place.where].arena(place, name, {}))
                except ValueError as error:
                    found.setdefault((name, place.where), str(error))
    fatal = [(name, reason) for (name, where), reason in found.items() if where == "edited"]
    if fatal and (not skip or len(fatal) == len(order) - 1 or fatal[0][0] == FLOOR):
        raise ValueError(f"{fatal[0][0]} can't be made here: {fatal[0][1]}")
    return found


def _seen(bout: Bout, grounds: Sequence[Place], named: bool) -> dict[Where, dict[str, Outcome]]:
    """What plain prompts show of the suite's rows (`named`), or of those that will be attacked."""
    found: dict[Where, dict[str, Outcome]] = {place.where: {} for place in grounds}
    for place in grounds:
        found[place.where] |= plain(bout, place, place.asked if named else place.rows)
    return found


def _must_show(
    grounds: Sequence[Place], untouched: Mapping[str, Outcome], portraits: Mapping[str, Tensor], model: str
) -> None:
    """ValueError where the untouched base never shows what is to be brought back."""
    for place in grounds:
        judged = [seen for row in place.asked if (seen := untouched[row.id].broken) is not None]
        others = len(portraits[place.concept])
        if not (any(judged) and others):
            raise ValueError(
                f"the untouched {model} shows {place.concept} in {sum(judged)} of {len(judged)} pictures that could be "
                f"judged, and in {others} from other seeds: there is nothing to bring back; attack a concept that it "
                "draws, or judge with scorers that know it"
            )


def _fought(
    bout: Bout,
    order: Mapping[str, Attack],
    grounds: Sequence[Place],
    before: Mapping[Where, Mapping[str, Outcome]],
    refused: Mapping[tuple[str, Where], str],
    survivors: bool,
) -> tuple[Fights, Fights]:
    """Every attack on rows that do not show the concept by themselves; and those by pictures, given another thing's."""
    found: Fights = {}
    decoys: Fights = {}
    fallen: set[str] = set()
    for name, attack in order.items():
        for place in grounds:
            if not attack.brings and place.where != "edited":
                continue
            whole = found.setdefault((name, place.where), Fight(missing=refused.get((name, place.where), "")))
            standing = [row for row in place.rows if not before[place.where][row.id].broken]
            if survivors and place.where == "edited":
                standing = [row for row in standing if row.id not in fallen]
            if whole.missing:
                continue
            whole.add(bout.fight(name, attack, place, standing))
            if attack.threat == "pictures" and (other := bout.other_than(place.concept)):
                decoys.setdefault((name, place.where), Fight()).add(bout.fight(name, attack, place, standing, other))
        if name != FLOOR and (name, "edited") in found:
            fallen |= {row for row, outcome in found[name, "edited"].outcomes.items() if outcome.broken}
    return found, decoys


def _intact(
    bout: Bout, order: Mapping[str, Attack], kept: Sequence[Place], refused: Mapping[tuple[str, Where], str]
) -> dict[str, dict[str, Outcome]]:
    """Of each attack that only undoes an edit: what the model that it makes shows of kept concepts, asked by name."""
    found: dict[str, dict[str, Outcome]] = {}
    for name, attack in order.items():
        if attack.brings or (name, "edited") in refused:
            continue
        for place in kept:
            asked = replace(place, rows=place.asked, called="")
            found.setdefault(name, {}).update(bout.fight(name, attack, asked, place.asked).outcomes)
    return found
