"""Attacks that go on: killed and resumed, added up in one folder, and records of other versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attack_plan import Reader
from efface.attacks import BASELINE
from efface.attacks.inversion import ConceptInversion
from efface.attacks.random_prefix import RandomPrefix
from efface.attacks.seeds import Seeds
from efface.attacks.synonyms import Synonyms
from efface.records.attack_files import read_attacks
from efface.robustness.merging import merge
from magic_word import Magic
from runner_fixtures import CONTROLS, ROWS, Setup, choose_plainly, drop_time


@pytest.mark.parametrize("stop_after", [0, 37, 70, 103])
def test_killed_and_resumed_loses_one_batch_at_most(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stop_after: int
) -> None:
    whole, drawn = setup.run(monkeypatch, choose_plainly, tmp_path / "whole", [Magic(), Seeds(queries=2)])
    with pytest.raises(KeyboardInterrupt):
        setup.run(monkeypatch, choose_plainly, tmp_path / "killed", [Magic(), Seeds(queries=2)], stop_after=stop_after)
    stopped = read_attacks(tmp_path / "killed")
    if stopped is not None:
        done = {each.attack: len(each.row_results) for each in stopped.interrupted if each.condition == "target"}
        assert done.get("seeds") == 0 and "an attack was interrupted" in [a.name for a in stopped.alarms]
    resumed, again = setup.run(monkeypatch, choose_plainly, tmp_path / "killed", [Magic(), Seeds(queries=2)])
    assert drop_time(resumed) == drop_time(whole)
    lost = stop_after + len(again.calls) - len(drawn.calls)
    assert 0 <= lost <= 32 * 2 + 25
    _, third = setup.run(monkeypatch, choose_plainly, tmp_path / "killed", [Magic(), Seeds(queries=2)])
    assert not third.calls


def test_a_damaged_picture_is_drawn_again(setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    record, _ = setup.run(monkeypatch, choose_plainly, tmp_path, [Magic()])
    (tmp_path / record.successes[0].picture).write_bytes(b"nothing")
    again, drawn = setup.run(monkeypatch, choose_plainly, tmp_path, [Magic()])
    assert 0 < len(drawn.calls) <= Magic.batch_size * 5 and drop_time(again) == drop_time(record)


def test_another_seed_is_another_file(setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    setup.run(monkeypatch, choose_plainly, tmp_path, [Magic()])
    _, drawn = setup.run(monkeypatch, choose_plainly, tmp_path, [Magic()], seed=1)
    assert any(text.startswith("magic") for text, _, _ in drawn.calls)


def test_other_judges_need_another_folder(setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    setup.run(monkeypatch, choose_plainly, tmp_path, [Magic()])
    with pytest.raises(ValueError, match=r"attacks with another scorers .*give another folder"):
        setup.run(monkeypatch, choose_plainly, tmp_path, [Magic()], judges=(Reader(name="other"),))


def test_attacks_in_one_folder_add_up(setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What one run broke stays broken in the next one's record, with its measures and its successes."""

    def plan(text: str, seed: int, edited: bool) -> str:
        return choose_plainly(text, seed, edited and not ("catlet" in text and seed % 2 == 0))

    first, _ = setup.run(monkeypatch, plan, tmp_path, [Synonyms(queries=2)])
    share = first.robust.value
    assert share is not None and 0 < share < 1
    second, _ = setup.run(monkeypatch, plan, tmp_path, [Seeds(queries=2)])
    assert second.robust == first.robust and second == read_attacks(tmp_path)
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
    """Version 1 of random prefixes cut a prompt's end off; version 2 of inversion left T5 without a prompt, and version
    3 read braces where a prompt named the concept again."""
    assert (RandomPrefix.version, ConceptInversion.version) == ("2", "4")

    with monkeypatch.context() as before:
        before.setattr(RandomPrefix, "version", "1")
        old, _ = setup.run(monkeypatch, choose_plainly, tmp_path, [RandomPrefix(queries=2)])
    new, again = setup.run(monkeypatch, choose_plainly, tmp_path, [RandomPrefix(queries=2)])
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
        setup.run(before, choose_plainly, tmp_path, [Seeds(queries=1)])
    _, drawn = setup.run(monkeypatch, choose_plainly, tmp_path / "whole", [Magic(turn=1)])
    last = max(i for i, (text, _, edited) in enumerate(drawn.calls) if text.startswith("magic cat") and edited)
    with pytest.raises(KeyboardInterrupt):
        setup.run(monkeypatch, choose_plainly, tmp_path / "other", [Magic(turn=1)], stop_after=last)
    with pytest.raises(KeyboardInterrupt):
        setup.run(monkeypatch, choose_plainly, tmp_path, [Magic(turn=1)], stop_after=ROWS + 3)
    for folder in (tmp_path / "other", tmp_path):
        record = read_attacks(folder)
        assert record is not None and record.find("magic-word") is None
        (stopped,) = [e for e in record.interrupted if (e.attack, e.condition) == ("magic-word", "target")]
        done = {row.row for row in stopped.row_results if row.broken}
        assert record.robust.value == pytest.approx(1 - len(done) / ROWS) and stopped.rows == ROWS
        assert record.robust.n == ROWS and "an attack was interrupted" in [a.name for a in record.alarms]
    (stopped,) = [e for e in read_attacks(tmp_path / "other").interrupted if e.condition == "target"]  # type: ignore[union-attr]
    assert 0 < len(stopped.row_results) < ROWS
    resumed, _ = setup.run(monkeypatch, choose_plainly, tmp_path, [Magic(turn=1)])
    assert not resumed.interrupted and resumed.robust.value == 0


def test_batches_without_their_record_are_not_overlooked(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    setup.run(monkeypatch, choose_plainly, tmp_path, [Magic()])
    (tmp_path / "attacks.json").unlink()
    with pytest.raises(ValueError, match=r"finished batches of attacks, but no attacks\.json"):
        read_attacks(tmp_path)


def test_a_record_of_version_1_is_read_and_added_to(tmp_path: Path) -> None:
    file = Path(__file__).with_name("attacks_v1.json")
    before = json.loads(file.read_text())
    (tmp_path / "attacks.json").write_text(file.read_text())
    with pytest.warns(UserWarning, match=r"attacks.json has no digest, because an earlier version wrote it"):
        record = read_attacks(tmp_path)
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


def test_the_record_of_another_version_is_refused(tmp_path: Path) -> None:
    assert read_attacks(tmp_path) is None
    (tmp_path / "attacks.json").write_text(json.dumps({"version": 99}))
    with pytest.raises(ValueError, match="version 99"):
        read_attacks(tmp_path)
    (tmp_path / "attacks.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        read_attacks(tmp_path)
