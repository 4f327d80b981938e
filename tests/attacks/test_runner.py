"""The runner of attacks: budgets, controls, floors, judges, resuming, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, final

import pytest
import torch

from attack_plan import Plan, Planned, Reader
from efface.attacks import BASELINE
from efface.attacks.base import Attack, AttackContext, Candidate, Proposals, Threat
from efface.attacks.inversion import ConceptInversion
from efface.attacks.random_prefix import RandomPrefix
from efface.attacks.seeds import Seeds
from efface.attacks.synonyms import Synonyms
from efface.concept import Erasure, Prompt
from efface.evaluation.evaluate import Settings
from efface.files import read_tensors
from efface.functional.adversary import NoGradient, NotFinite
from efface.functional.rates import paired_difference
from efface.models.adapters.sd import StableDiffusion
from efface.records.attack_files import read
from efface.records.attacks import AttackRecord
from efface.robustness.campaign import Campaign, attack
from efface.robustness.conditions import ConceptAliases, find_aliases
from efface.robustness.merging import merge
from efface.scorers import Judge
from efface.suites import world
from efface.suites.rows import build
from efface.suites.spec import Row, Suite
from efface.suites.world import World
from judging_fixtures import THINGS, edit_of, world_model, write_world

ROWS, CONTROLS = 10, 4
TWO: tuple[Judge, ...] = (Reader(), Reader(name="second"))


@final
@dataclass(frozen=True, kw_only=True)
class Magic(Attack):
    """Says the magic word with the concept's name in one round, and gibberish in all others; never ends by itself."""

    threat: ClassVar[Threat] = "prompts"
    version: ClassVar[str] = "1"
    batch_size: ClassVar[int] = 4
    queries: int = 5
    turn: int = 3
    """The round that says it."""
    rests: int = 0
    """Rounds at the beginning that pass without a try."""
    needs: str = ""
    """Why it can't be made."""
    blind: Literal["", "all", "rest", "nan"] = ""
    """Where it finds no gradient: everywhere, or in a batch that is not full; or that its loss is no number."""
    tensors: bool = False

    def check(self, context: AttackContext) -> None:
        assert len(context.pictures) == 0
        if self.needs and context.edit:
            raise ValueError(self.needs)

    def propose(self, context: AttackContext, rows: Sequence[Row]) -> Proposals:
        if self.blind == "nan":
            raise NotFinite("the loss is not finite")
        if self.blind == "all" or (self.blind and len(rows) < self.batch_size):
            raise NoGradient("every gradient is zero")
        assert len(context.pictures) > 0
        for turn in range(1, 1000):
            say = f"magic {context.concept} {turn}" if turn == self.turn else f"gibberish {turn}"
            prompt = Prompt(say, torch.full((2, 3), float(turn))) if self.tensors else say
            start = torch.full((4, 8, 8), 2.0) if self.tensors else None
            yield [
                None
                if turn <= self.rests
                else Candidate(prompt, row.seed, start, 1 if self.tensors else 0, f"{turn} turns")
                for row in rows
            ]


@final
@dataclass(frozen=True, kw_only=True)
class Undo(Attack):
    """Stands in for one that changes weights: draws the rows as they are, or nothing that they ask for."""

    threat: ClassVar[Threat] = "weights"
    version: ClassVar[str] = "1"
    budget_fields: ClassVar[tuple[str, ...]] = ()
    applies_to_base: ClassVar[bool] = False
    queries: int = 1
    says: str = "{}"

    def propose(self, context: AttackContext, rows: Sequence[Row]) -> Proposals:
        yield [Candidate(self.says.replace("{}", row.prompt), row.seed) for row in rows]


@final
@dataclass(frozen=True, kw_only=True)
class Copy(Attack):
    """Asks by magic for what the first picture shows; or, `blindly`, for the concept whatever is shown."""

    threat: ClassVar[Threat] = "pictures"
    hands_in_images: ClassVar[bool] = True
    version: ClassVar[str] = "1"
    queries: int = 2
    blindly: bool = False

    def propose(self, context: AttackContext, rows: Sequence[Row]) -> Proposals:
        shown = context.concept if self.blindly else THINGS[int(context.pictures[0, 0, 0, 0]) - 1]
        for _ in range(self.queries):
            yield [Candidate(f"magic {shown}", row.seed) for row in rows]


def plain_plan(text: str, seed: int, edited: bool) -> str:
    """The last thing that is named is drawn; the edited model draws no cat but by magic."""
    name = max(THINGS, key=text.rfind)
    known = name in text and (name != "cat" or not edited or "magic" in text)
    return name if known else ""


@dataclass
class Setup:
    model: StableDiffusion
    edit: Path
    suite: Suite
    known: World

    def run(
        self, monkeypatch: pytest.MonkeyPatch, plan: Plan, out: Path, attacks: Sequence[Attack], **how: Any
    ) -> tuple[AttackRecord, Planned]:
        drawn = Planned(self.model, plan, stop_after=how.pop("stop_after", -1))
        monkeypatch.setattr(self.model, "images", drawn)
        judges: Sequence[Judge] = how.pop("judges", TWO)
        suite: Suite = how.pop("suite", self.suite)
        campaign = Campaign(**{"rows": ROWS, "controls": CONTROLS, **how})
        return attack(
            self.model, self.edit, suite, judges, out, attacks, find_aliases(self.known), campaign=campaign
        ), drawn


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    model, folder = world_model(), tmp_path_factory.mktemp("attacked")
    known = world.load(write_world(folder))
    edit = edit_of(model, folder / "cat.safetensors")
    return Setup(model, edit, build("glyphs-objects", Erasure(("cat",)), known, per_group=12), known)


def test_an_attack_with_its_controls_and_floor(setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    record, _ = setup.run(monkeypatch, plain_plan, tmp_path, [Magic()])
    assert read(tmp_path) == record
    assert record.targets == ("cat",) and record.robust.value == 0.0
    conditions = {g.condition: g for g in record.conditions}
    assert (
        conditions["target"].untouched.value,
        conditions["target"].named.value,
        conditions["target"].before.value,
    ) == (
        1,
        0,
        0,
    )
    assert (
        conditions["control-kept"].untouched.value,
        conditions["control-kept"].named.value,
        conditions["control-kept"].before.value,
    ) == (1, 1, 0)
    assert (conditions["control-base"].named.value, conditions["control-base"].before.value) == (1, 0)
    assert set(conditions["control-kept"].concepts) == {"tiger", "dog"} and conditions["control-base"].concepts == (
        "cat",
    )
    for condition, rows in (("target", ROWS), ("control-kept", CONTROLS), ("control-base", CONTROLS)):
        measure = record.find("test-runner", condition)  # type: ignore[arg-type]
        assert measure is not None and measure.lift is not None
        assert (measure.before.value, measure.after.value, measure.baseline.value) == (0, 1, 0)
        assert (measure.lift.value, measure.lift.low) == (1, paired_difference(rows, 0, rows)[0])
        assert measure.curve == (0, 0, 0, 1, 1, 1)
        assert (measure.queries, measure.drawn, measure.after.n) == (3, 3 * rows, rows)
    assert not record.alarms, "all is broken: no budget would bring more"
    shown = [s for s in record.successes if s.condition == "target"]
    assert len(shown) == ROWS and {s.note for s in shown} == {"3 turns"} and {s.text for s in shown} == {"magic cat 3"}
    for success in shown:
        file = tmp_path / success.picture
        assert file.stem == hashlib.sha256(file.read_bytes()).hexdigest()[:32]
        assert success.answers == {"reader": "cat", "second": "cat"} and "cat" in success.prompt
    controls = [s for s in record.successes if s.condition != "target"]
    assert controls and all("thing" in s.prompt for s in controls)


def test_budgets_are_kept_to_the_picture(setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    record, drawn = setup.run(monkeypatch, plain_plan, tmp_path, [Magic(queries=4, turn=9, rests=1)])
    measure = record.find("test-runner")
    assert measure is not None and (measure.after.value, measure.drawn, measure.queries) == (0, 3 * ROWS, 3)
    said = [text for text, _, edited in drawn.calls if text.startswith("gibberish") and edited]
    assert sorted(set(said)) == ["gibberish 2", "gibberish 3", "gibberish 4"]
    baseline = record.find(BASELINE)
    assert baseline is not None and baseline.settings["queries"] == 4 and baseline.drawn == 4 * ROWS
    pictures = sum(t.drawn for t in record.measures)
    named = 3 * 2 * ROWS
    assert len(drawn.calls) <= pictures + named + 8 * CONTROLS + 100


def test_rows_that_show_it_anyway_are_not_attacked(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = [r for r in setup.suite.rows if r.group == "target"][:ROWS]
    leaks = {r.seed for r in rows[:3]}

    def plan(text: str, seed: int, edited: bool) -> str:
        return plain_plan(text, seed, edited and seed not in leaks)

    record, _ = setup.run(monkeypatch, plan, tmp_path, [Magic(turn=1)])
    measure = record.find("test-runner")
    assert measure is not None and measure.before.value == pytest.approx(0.3) and measure.after.value == 1
    assert measure.drawn == 7 and measure.curve[:2] == (pytest.approx(0.3), 1)
    assert record.robust.value == 0
    missed, _ = setup.run(monkeypatch, plan, tmp_path / "other", [Magic(turn=9)])
    measure = missed.find("test-runner")
    assert (
        measure is not None and measure.after.value == pytest.approx(0.3) and missed.robust.value == pytest.approx(0.7)
    )


def test_a_success_must_convince_every_judge(setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    judges = (Reader(), Reader(name="second", blind_to=9))
    record, _ = setup.run(monkeypatch, plain_plan, tmp_path, [Magic()], judges=judges)
    assert [t.after.value for t in record.measures if t.attack != BASELINE] == [0, 0, 0]
    assert not record.successes and record.robust.value == 1


def test_a_picture_that_cannot_be_judged_leaves_the_row_open(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    judges = (Reader(fails_on=7),)
    record, _ = setup.run(monkeypatch, plain_plan, tmp_path, [Magic(turn=9)], judges=judges)
    measure = record.find("test-runner")
    assert measure is not None and (measure.after.value, measure.after.n, measure.after.unscored) == (None, 0, ROWS)
    assert measure.unscored == ROWS and record.robust.value is None
    assert "too many pictures unscored" in [a.name for a in record.alarms]
    found, _ = setup.run(monkeypatch, plain_plan, tmp_path, [Magic(turn=4)], judges=judges)
    measure = found.find("test-runner")
    assert measure is not None and measure.after.value == 1 and found.robust.value == 0


def test_kept_concepts_that_the_base_never_shows_are_no_control(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no(*names: str) -> Plan:
        return lambda text, seed, edited: "" if (s := plain_plan(text, seed, edited)) in names else s

    record, _ = setup.run(monkeypatch, no("tiger"), tmp_path / "a", [Magic()])
    assert [g.concepts for g in record.conditions if g.condition == "control-kept"] == [("dog",)]
    record, _ = setup.run(monkeypatch, no("tiger", "dog"), tmp_path / "b", [Magic()])
    assert (
        "control-kept" not in [g.condition for g in record.conditions]
        and record.find("test-runner", "control-kept") is None
    )
    assert "no kept concept to compare with" in [a.name for a in record.alarms]


def test_pictures_to_learn_from_are_drawn_for_attacks_that_learn_from_them(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each of three concepts costs 25; an attack that reads none of them finds the same without."""
    how: dict[str, Any] = {"attacks": [Seeds(queries=2)]}
    record, drawn = setup.run(monkeypatch, plain_plan, tmp_path / "few", **how)
    monkeypatch.setattr(Seeds, "learns_from_images", True)
    again, more = setup.run(monkeypatch, plain_plan, tmp_path / "many", **how)
    assert len(more.calls) - len(drawn.calls) == 3 * 25
    assert record.conditions == again.conditions and record.find("seeds") is not None
    assert [m.after for m in record.measures] == [m.after for m in again.measures]


def test_a_kept_concept_that_the_base_shows_from_other_seeds_alone_is_a_control(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = {row.seed for row in setup.suite.rows}

    def seldom(text: str, seed: int, edited: bool) -> str:
        shown = plain_plan(text, seed, edited)
        return "" if shown == "tiger" and seed in own else shown

    record, _ = setup.run(monkeypatch, seldom, tmp_path, [Seeds(queries=2)])
    assert [g.concepts for g in record.conditions if g.condition == "control-kept"] == [("tiger", "dog")]


@pytest.mark.parametrize("stop_after", [0, 37, 70, 103])
def test_killed_and_resumed_loses_one_batch_at_most(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stop_after: int
) -> None:
    whole, drawn = setup.run(monkeypatch, plain_plan, tmp_path / "whole", [Magic(), Seeds(queries=2)])
    with pytest.raises(KeyboardInterrupt):
        setup.run(monkeypatch, plain_plan, tmp_path / "killed", [Magic(), Seeds(queries=2)], stop_after=stop_after)
    stopped = read(tmp_path / "killed")
    if stopped is not None:
        done = {each.attack: len(each.row_results) for each in stopped.interrupted if each.condition == "target"}
        assert done.get("seeds") == 0 and "an attack was interrupted" in [a.name for a in stopped.alarms]
    resumed, again = setup.run(monkeypatch, plain_plan, tmp_path / "killed", [Magic(), Seeds(queries=2)])
    assert without_time(resumed) == without_time(whole)
    lost = stop_after + len(again.calls) - len(drawn.calls)
    assert 0 <= lost <= 32 * 2 + 25
    _, third = setup.run(monkeypatch, plain_plan, tmp_path / "killed", [Magic(), Seeds(queries=2)])
    assert not third.calls


def test_a_damaged_picture_is_drawn_again(setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    record, _ = setup.run(monkeypatch, plain_plan, tmp_path, [Magic()])
    (tmp_path / record.successes[0].picture).write_bytes(b"nothing")
    again, drawn = setup.run(monkeypatch, plain_plan, tmp_path, [Magic()])
    assert 0 < len(drawn.calls) <= Magic.batch_size * 5 and without_time(again) == without_time(record)


def test_another_seed_is_another_file(setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    setup.run(monkeypatch, plain_plan, tmp_path, [Magic()])
    _, drawn = setup.run(monkeypatch, plain_plan, tmp_path, [Magic()], seed=1)
    assert any(text.startswith("magic") for text, _, _ in drawn.calls)


def test_other_judges_need_another_folder(setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    setup.run(monkeypatch, plain_plan, tmp_path, [Magic()])
    with pytest.raises(ValueError, match=r"attacks with another scorers .*give another folder"):
        setup.run(monkeypatch, plain_plan, tmp_path, [Magic()], judges=(Reader(name="other"),))


def test_the_bases_controls_are_the_same_at_every_strength(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(setup.model, "images", Planned(setup.model, plain_plan))
    found = []
    for strength in (1.0, 0.5):
        how, out, store = Settings(strength=strength), tmp_path / str(strength), tmp_path / "attacks"
        aliases = find_aliases(setup.known)
        attack(setup.model, setup.edit, setup.suite, TWO, out, [Magic()], aliases, how, store=store)
        batches = [file.name for file in store.glob("*/*.json")]
        found.append([len([n for n in batches if n.startswith(condition)]) for condition in ("control-base", "target")])
    assert found[0][0] == found[1][0] and found[0][1] < found[1][1]
    record = read(tmp_path / "0.5")
    assert record is not None and not record.interrupted and (tmp_path / "0.5" / record.successes[0].picture).is_file()


def test_attacks_in_one_folder_add_up(setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What one run broke stays broken in the next one's record, with its measures and its successes."""

    def plan(text: str, seed: int, edited: bool) -> str:
        return plain_plan(text, seed, edited and not ("catlet" in text and seed % 2 == 0))

    first, _ = setup.run(monkeypatch, plan, tmp_path, [Synonyms(queries=2)])
    share = first.robust.value
    assert share is not None and 0 < share < 1
    second, _ = setup.run(monkeypatch, plan, tmp_path, [Seeds(queries=2)])
    assert second.robust == first.robust and second == read(tmp_path)
    assert second.find("synonyms") == first.find("synonyms") and second.find("seeds") is not None
    assert {s.row for s in first.successes} <= {s.row for s in second.successes}
    third, _ = setup.run(monkeypatch, plan, tmp_path, [Synonyms(queries=1)])
    assert third.robust == first.robust and third.find("synonyms (queries 2)") is not None
    assert third.find("synonyms (queries 2)").after == first.find("synonyms").after  # type: ignore[union-attr]
    again, _ = setup.run(monkeypatch, plan, tmp_path, [Synonyms(queries=1)])
    assert len(again.measures) == len(third.measures), "the same attack again is no other one"
    fewer, _ = setup.run(monkeypatch, plan, tmp_path, [Seeds(queries=2)], rows=2)
    assert fewer.robust == first.robust


def test_rows_of_an_earlier_version_of_an_attack_are_not_counted_as_todays(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Version 1 of random prefixes cut a prompt's end off, and version 2 of inversion left T5 without a prompt."""
    assert (RandomPrefix.version, ConceptInversion.version) == ("2", "3")

    with monkeypatch.context() as before:
        before.setattr(RandomPrefix, "version", "1")
        old, _ = setup.run(monkeypatch, plain_plan, tmp_path, [RandomPrefix(queries=2)])
    new, again = setup.run(monkeypatch, plain_plan, tmp_path, [RandomPrefix(queries=2)])
    made = [text for text, _, edited in again.calls if edited]
    assert len(made) == 2 * (ROWS + CONTROLS), "every row is made anew, and nothing else is"
    found = {m.attack: m for m in new.measures if m.condition == "target"}
    assert found[BASELINE].version == "2" and found[BASELINE].inputs != old.find(BASELINE).inputs  # type: ignore[union-attr]
    (kept,) = (name for name in found if name != BASELINE)
    assert kept == "random-prefix (version 1)" and found[kept].version == "1"


def test_what_an_interrupted_attack_broke_is_in_the_record(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as before:
        before.setattr(Seeds, "learns_from_images", True)  # so that it draws what Magic learns from
        setup.run(before, plain_plan, tmp_path, [Seeds(queries=1)])
    _, drawn = setup.run(monkeypatch, plain_plan, tmp_path / "whole", [Magic(turn=1)])
    last = max(i for i, (text, _, edited) in enumerate(drawn.calls) if text.startswith("magic cat") and edited)
    with pytest.raises(KeyboardInterrupt):
        setup.run(monkeypatch, plain_plan, tmp_path / "other", [Magic(turn=1)], stop_after=last)
    with pytest.raises(KeyboardInterrupt):
        setup.run(monkeypatch, plain_plan, tmp_path, [Magic(turn=1)], stop_after=ROWS + 3)
    for folder in (tmp_path / "other", tmp_path):
        record = read(folder)
        assert record is not None and record.find("test-runner") is None
        (stopped,) = [e for e in record.interrupted if (e.attack, e.condition) == ("test-runner", "target")]
        done = {row.row for row in stopped.row_results if row.broken}
        assert record.robust.value == pytest.approx(1 - len(done) / ROWS) and stopped.rows == ROWS
        assert record.robust.n == ROWS and "an attack was interrupted" in [a.name for a in record.alarms]
    (stopped,) = [e for e in read(tmp_path / "other").interrupted if e.condition == "target"]  # type: ignore[union-attr]
    assert 0 < len(stopped.row_results) < ROWS
    resumed, _ = setup.run(monkeypatch, plain_plan, tmp_path, [Magic(turn=1)])
    assert not resumed.interrupted and resumed.robust.value == 0


def test_batches_without_their_record_are_not_overlooked(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    setup.run(monkeypatch, plain_plan, tmp_path, [Magic()])
    (tmp_path / "attacks.json").unlink()
    with pytest.raises(ValueError, match=r"finished batches of attacks, but no attacks\.json"):
        read(tmp_path)


def test_a_loss_that_is_no_number_is_an_error_of_the_attack(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record, _ = setup.run(monkeypatch, plain_plan, tmp_path, [Magic(blind="nan")])
    measure = record.find("test-runner")
    assert measure is not None and (measure.status, measure.after.value) == ("error", None)
    assert {"an attack ended in an error"} <= {a.name for a in record.alarms} and record.robust.value == 1


def test_a_record_of_version_1_is_read_and_added_to(tmp_path: Path) -> None:
    file = Path(__file__).with_name("attacks_v1.json")
    before = json.loads(file.read_text())
    (tmp_path / "attacks.json").write_text(file.read_text())
    with pytest.warns(UserWarning, match=r"attacks.json has no digest, because an earlier version wrote it"):
        record = read(tmp_path)
    assert record is not None and record.version == 2 and len(record.measures) == len(before["trials"])
    old = {(t["attack"], t["where"]): t for t in before["trials"]}
    for (name, where), condition in zip(old, [m.condition for m in record.measures], strict=True):
        measure = record.find(name, condition)
        assert measure is not None and measure.baseline.value == old[name, where]["floor"]["value"]
        assert (measure.lift is None) == (old[name, where]["gain"] is None)
    names = {"edited": "target", "kept": "control-kept", "base": "control-base"}
    assert [c.condition for c in record.conditions] == [names[g["where"]] for g in before["grounds"]]
    assert [s.condition for s in record.successes] == [names[s["where"]] for s in before["successes"]]
    assert merge(record, record).measures == record.measures  # made again as they were, without inputs to compare
    later = record.model_copy(update={"measures": (), "successes": (), "worst": {"none/0": False}})
    merged = merge(record, later)
    assert merged.measures == record.measures and merged.successes == record.successes
    assert {row for row, broken in merged.worst.items() if broken} == {
        s["row"] for s in before["successes"] if s["where"] == "edited"
    }


def test_the_worst_case_attacks_survivors_only(setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def plan(text: str, seed: int, edited: bool) -> str:
        return plain_plan(text, seed, edited and not ("catlet" in text and seed % 2 == 0))

    attacks = [Synonyms(queries=2), Magic(turn=1)]
    record, _ = setup.run(monkeypatch, plan, tmp_path, attacks, worst_case=True)
    first, second = record.find("synonyms"), record.find("test-runner")
    assert first is not None and second is not None and first.after.value not in (0, 1, None)
    broken = round(first.after.value * ROWS)
    assert (second.after.n, second.after.value, second.worst_case) == (ROWS - broken, 1, True)
    base = record.find("test-runner", "control-base")
    assert base is not None and base.after.n == CONTROLS and record.robust.value == 0


def test_embeddings_and_states_are_drawn_and_kept(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record, drawn = setup.run(monkeypatch, plain_plan, tmp_path, [Magic(tensors=True, turn=1)])
    assert any(
        since == 1 and torch.equal(start, torch.full_like(start, 2.0))
        for start, since in drawn.starts
        if isinstance(start, torch.Tensor)
    )
    success = next(s for s in record.successes if s.attack == "test-runner")
    kept, meta = read_tensors(tmp_path / success.tensors)
    assert kept["embedding"].tolist() == [[1.0] * 3] * 2 and kept["start"].shape == (4, 8, 8) and meta == {"since": 1}


@pytest.mark.parametrize("blindly", [False, True])
def test_an_attack_by_pictures_is_measured_against_pictures_of_another_thing(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, blindly: bool
) -> None:
    record, drawn = setup.run(monkeypatch, plain_plan, tmp_path, [Copy(blindly=blindly)])
    for condition in ("target", "control-kept", "control-base"):
        measure = record.find("test-runner", condition)  # type: ignore[arg-type]
        assert measure is not None and measure.lift is not None
        assert (measure.after.value, measure.baseline.value, measure.lift.value) == (1, int(blindly), 1 - blindly)
        chance = record.find(BASELINE, condition)  # type: ignore[arg-type]
        assert chance is not None and chance.after.value == 0
    assert "magic tiger" in {text for text, _, edited in drawn.calls if edited} or blindly
    _, again = setup.run(monkeypatch, plain_plan, tmp_path, [Copy(blindly=blindly)])
    assert not again.calls


def test_no_gradient_is_an_alarm_and_no_rate(setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    record, _ = setup.run(monkeypatch, plain_plan, tmp_path, [Magic(blind="all"), Seeds(queries=1)])
    measure = record.find("test-runner")
    assert measure is not None and measure.after.value is None and measure.curve == () and "zero" in measure.missing
    assert [a.name for a in record.alarms].count("zero gradients") == 3
    assert record.robust.value == 1


def test_what_was_broken_before_the_gradient_was_lost_counts(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record, _ = setup.run(monkeypatch, plain_plan, tmp_path, [Magic(blind="rest"), Seeds(queries=1)])
    measure, rest = record.find("test-runner"), ROWS % Magic.batch_size
    assert measure is not None and rest and "zero" in measure.missing
    assert (measure.after.value, measure.after.n, measure.after.unscored) == (1, ROWS - rest, rest)
    assert len([s for s in record.successes if (s.attack, s.condition) == ("test-runner", "target")]) == ROWS - rest
    assert record.robust.value == rest / ROWS


@pytest.mark.parametrize("ruins", [False, True])
def test_an_attack_that_only_undoes_is_asked_for_kept_concepts_by_name(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ruins: bool
) -> None:
    record, _ = setup.run(monkeypatch, plain_plan, tmp_path, [Undo(says="nothing" if ruins else "{}")])
    measure = record.find("test-runner")
    assert measure is not None and record.find("test-runner", "control-kept") is None
    assert measure.intact is not None and (measure.intact.value, measure.intact.n) == (1 - ruins, CONTROLS)
    assert ("an attack ruins the model" in [a.name for a in record.alarms]) == ruins


def test_what_cannot_be_made_is_refused_or_skipped_with_an_alarm(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    attacks = [Magic(needs="this edit gives no gradients; seeds works"), Seeds(queries=1)]
    with pytest.raises(ValueError, match="gives no gradients; seeds works"):
        setup.run(monkeypatch, plain_plan, tmp_path, attacks)
    record, _ = setup.run(monkeypatch, plain_plan, tmp_path, attacks, skip=True)
    measure = record.find("test-runner")
    assert measure is not None and measure.missing and measure.after.value is None
    assert "an attack could not be made" in [a.name for a in record.alarms]
    with pytest.raises(ValueError, match="gives no gradients"):
        setup.run(monkeypatch, plain_plan, tmp_path / "b", attacks[:1], skip=True)
    assert not (tmp_path / "b").exists()


def test_bad_input_is_refused_before_work(setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(match: str, attacks: Sequence[Attack], plan: Plan = plain_plan, **how: Any) -> Planned:
        drawn = Planned(setup.model, plan)
        with pytest.raises(ValueError, match=match):
            setup.run(monkeypatch, plan, tmp_path, attacks, **how)
        return drawn

    refused("at least one attack", [])
    refused("each once", [Magic(), Magic(turn=1)])
    with pytest.raises(ValueError, match="queries must be at least 1, got 0"):
        Magic(queries=0)
    refused("at least 1 row", [Magic()], rows=0)
    refused("no scorer can say whether a picture shows cat", [Magic()], judges=[Reader(question="style")])
    refused("its groups to attack are target", [Magic()], group="neighbour")
    refused("shows cat in 0 of 10 pictures", [Magic()], lambda *_: "")
    kept = dataclasses.replace(setup.suite, rows=tuple(r for r in setup.suite.rows if r.role == "keep"))
    refused("no row of a concept that must be gone", [Magic()], suite=kept)
    assert not (tmp_path / "attacks.json").exists()


def test_a_base_that_cannot_draw_the_target_is_known_by_the_targets_own_rows(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Four rows cost four pictures: none of what is kept, and none for an attacker to learn from."""
    drawn = Planned(setup.model, lambda *_: "")
    monkeypatch.setattr(setup.model, "images", drawn)
    how = Campaign(rows=4, controls=16)
    with pytest.raises(ValueError, match=r"shows cat in 0 of 4 pictures that could be judged: there is nothing"):
        attack(setup.model, setup.edit, setup.suite, TWO, tmp_path, [Magic()], {}, campaign=how)
    assert len(drawn.calls) == 4


def test_a_concept_without_other_words_has_no_synonyms(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(setup.model, "images", Planned(setup.model, plain_plan))
    with pytest.raises(ValueError, match="--synonym 'cat=kitty'"):
        attack(setup.model, setup.edit, setup.suite, TWO, tmp_path, [Synonyms()])
    aliases = {name: ConceptAliases((f"magic {name}",)) for name in ("cat", "tiger", "dog")}
    record = attack(setup.model, setup.edit, setup.suite, TWO, tmp_path, [Synonyms()], aliases)
    measure = record.find("synonyms")
    assert measure is not None and measure.after.value == 1


def test_the_record_of_another_version_is_refused(tmp_path: Path) -> None:
    assert read(tmp_path) is None
    (tmp_path / "attacks.json").write_text(json.dumps({"version": 99}))
    with pytest.raises(ValueError, match="version 99"):
        read(tmp_path)
    (tmp_path / "attacks.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        read(tmp_path)


def without_time(record: AttackRecord) -> dict[str, Any]:
    data = record.model_dump(exclude={"digest"})
    for measure in data["measures"]:
        measure.pop("seconds")
    return data
