"""The takedown record: what it says, what it admits, and that its hashes notice every change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from basis_fixtures import change_attacks
from efface.compliance import checking, takedown
from efface.compliance.untested import Untested, list_untested
from efface.records.attacks import Batch, PlannedAttack, RowResult
from efface.records.report import Alarm, SuitePart
from efface.records.sealed import write_sealed
from efface.suites import read_spec
from report_fixtures import build_measures, build_share, measure, record, write_attacks, write_evaluation

DRAWN = {"target": "the target"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "edit.safetensors").write_bytes(b"an edit")
    drawing = record().drawing.model_copy(update={"edit": hashlib.sha256(b"an edit").hexdigest()})
    return write_evaluation(tmp_path / "evaluation", drawing=drawing)


def test_it_says_what_the_evaluation_says(folder: Path) -> None:
    made = takedown.build_takedown(folder, "2026-01-31", "letter 12", "../edit.safetensors")
    seen = record()
    assert made.request.targets == ("cat",) and made.request.keep == ("rose",) and made.request.note == "letter 12"
    assert made.date == "2026-01-31" and made.drawing.fingerprint == seen.drawing.fingerprint
    assert made.rates == tuple(m for m in seen.measures if m.judge == "all")
    assert made.files["report.json"] == hashlib.sha256((folder / "report.json").read_bytes()).hexdigest()
    assert set(made.files) == {"report.json", "rows.parquet", "protocol.json"}
    assert len(takedown.build_takedown(folder).date) == 10


def test_its_digest_is_that_of_everything_else(folder: Path) -> None:
    made = takedown.build_takedown(folder, "2026-01-31")
    data = json.loads(made.model_dump_json())
    digest, _ = data.pop("digest"), data.pop("page")
    text = json.dumps(data, sort_keys=True, ensure_ascii=False)
    assert digest == hashlib.sha256(text.encode()).hexdigest()
    assert takedown.build_takedown(folder, "2026-02-01").digest != digest


def test_bad_input_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="write it as 2026-01-31"):
        takedown.build_takedown(folder, "31.1.2026")
    (tmp_path / "edit.safetensors").write_bytes(b"another")
    with pytest.raises(ValueError, match="is not the edit that was judged"):
        takedown.build_takedown(folder, edit_file="../edit.safetensors")
    with pytest.raises(FileNotFoundError, match="no file"):
        takedown.build_takedown(folder, edit_file="../none.safetensors")
    with pytest.raises(FileNotFoundError, match="efface record"):
        takedown.read_takedown(folder / "takedown.json")
    for text, says in (('{"version": 9}', "of version 9"), ("{", "damaged")):
        (folder / "takedown.json").write_text(text)
        with pytest.raises(ValueError, match=says):
            takedown.read_takedown(folder / "takedown.json")


def describe_unchecked(found: list[Untested]) -> str:
    return "\n".join(f"{u.what} ({u.why})" for u in found)


def test_it_admits_what_was_not_drawn_nor_attacked_nor_varied() -> None:
    known = read_spec("glyphs-objects")
    suite = SuitePart(name=known.name, version=known.version, licence="", source="", groups=DRAWN)
    found = describe_unchecked(list_untested(record(suite=suite)))
    for group in known.groups:
        assert (f"group {group.name}:" in found) == (group.name not in DRAWN)
    for words in ("languages other", "attacks of any kind", "quality of the pictures", "strengths other than 1"):
        assert words in found
    for words in ("schedulers other than Euler", "step counts other than 12", "LoRA"):
        assert words in found
    old = suite.model_copy(update={"version": "0"})
    assert "other groups of glyphs-objects (not known of version 0)" in describe_unchecked(
        list_untested(record(suite=old))
    )


def test_what_was_done_is_not_called_untested(folder: Path) -> None:
    spoken = SuitePart(name="x", version="1", licence="", source="", groups={"language": "other languages"})
    assert "languages other" not in describe_unchecked(list_untested(record(suite=spoken)))
    write_attacks(folder)
    found = describe_unchecked(list(takedown.build_takedown(folder).untested))
    assert "attacks of any kind" not in found and "synonyms" not in found and "seeds" in found
    rates = {(m.metric, m.group): m.edited.value for m in takedown.build_takedown(folder).rates}
    assert rates["asr", "synonyms"] == 0.5 and rates["robust", "attacks"] == 9 / 20
    assert "attacks.json" in takedown.build_takedown(folder).files


def test_an_attack_that_could_not_be_made_or_only_in_a_control_is_not_called_run(folder: Path) -> None:
    whole = write_attacks(folder)
    other = {"blind": {"attack": "seeds"}, "relearn": {"attack": "merge", "condition": "control-base"}}
    measures = tuple(m.model_copy(update=other.get(m.attack, {})) for m in whole.measures)
    write_sealed(folder / "attacks.json", whole.model_copy(update={"measures": measures}))
    (left,) = [u.what for u in takedown.build_takedown(folder).untested if u.why == "not run"]
    assert {"seeds", "merge"} <= set(left.removeprefix("attacks ").split(", ")) and "synonyms" not in left


def list_outcomes(folder: Path, made: takedown.Takedown, base: dict[str, str] | None = None) -> dict[str, str]:
    known = record().drawing.fingerprint if base is None else base
    return {c.what: c.outcome for c in checking.check_hashes(folder, made, None, known or None)}


def test_every_hash_is_taken_again(folder: Path) -> None:
    made = takedown.build_takedown(folder, edit_file="../edit.safetensors")
    found = list_outcomes(folder, made)
    assert set(found.values()) == {"same"} and len(found) == 8
    # The base at one dtype is the base.
    assert list_outcomes(folder, made, {"fp32": "other", "fp16": "b" * 32})["the base made-up"] == "same"
    assert list_outcomes(folder, made, {"fp32": "other", "fp16": "other"})["the base made-up"] == "differs"
    assert list_outcomes(folder, made, {})["the base"] == "not checked"
    assert list_outcomes(folder, takedown.build_takedown(folder))["the edit"] == "not checked"


def test_an_interrupted_attack_is_told(folder: Path) -> None:
    planned = PlannedAttack(attack="seeds", condition="target", version="1", settings={}, inputs=("x",), rows=20)
    whole = write_attacks(folder).model_copy(
        update={"planned": (planned,), "worst": {f"target/cat/{i}": False for i in "01"}}
    )
    write_sealed(folder / "attacks.json", whole)
    results = tuple(RowResult(row=f"target/cat/{i}", broken=i == "0", queries=1) for i in "01")
    batch = Batch(attack="seeds", condition="target", inputs="x", row_results=results, seconds=1.0)
    (folder / "attacks" / "seeds").mkdir()
    (folder / "attacks" / "seeds" / "target-0.json").write_text(batch.model_dump_json())
    made = takedown.build_takedown(folder)
    found = {u.what: u.why for u in made.untested}
    assert found["attack seeds to its end"] == "interrupted after 2 of 20 prompts, of which it broke 1"
    assert {(m.metric, m.group): m.edited.value for m in made.rates}["robust", "attacks"] == 0.5


def test_attacks_made_after_the_record_are_noticed(folder: Path) -> None:
    made = takedown.build_takedown(folder, edit_file="../edit.safetensors")
    write_attacks(folder)
    assert list_outcomes(folder, made)["attacks.json"] == "differs"
    assert (
        list_outcomes(folder, takedown.build_takedown(folder, edit_file="../edit.safetensors"))["attacks.json"]
        == "same"
    )


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGE: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "report": (lambda f: _cut(f / "report.json"), {"report.json"}),
    "rows": (lambda f: _cut(f / "rows.parquet"), {"rows.parquet", "prompts and pictures"}),
    "picture": (lambda f: _cut(next(f.rglob("*.png"))), {"pictures"}),
    "no picture": (lambda f: next(f.rglob("*.png")).unlink(), {"pictures"}),
    "edit": (lambda f: _cut(f.parent / "edit.safetensors"), {"the edit edit.safetensors"}),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_change_is_noticed_where_it_is(case: str, folder: Path) -> None:
    made = takedown.build_takedown(folder, edit_file="../edit.safetensors")
    damage, where = DAMAGE[case]
    damage(folder)
    assert {what for what, found in list_outcomes(folder, made).items() if found != "same"} == where


def test_other_prompts_under_the_same_file_hash_are_noticed(folder: Path) -> None:
    made = takedown.build_takedown(folder)
    other = made.model_copy(update={"rows_digest": "0" * 32})
    found = list_outcomes(folder, other)
    assert found["prompts, seeds and questions"] == "differs" and found["the record itself"] == "differs"


def test_rates_without_one_of_all_judges_are_those_of_each_judge(tmp_path: Path) -> None:
    """A protocol of detectors has its headlines from them."""
    ner = [
        measure("ner", "target", build_share(5, 50), build_share(40, 50), judge=judge, threshold=0.6)
        for judge in ("one", "two")
    ]
    both = [measure("ner", "target", build_share(1, 50), judge=judge, threshold=0.3) for judge in ("all", "one")]
    found = (*build_measures(), *ner, *both)
    made = takedown.build_takedown(write_evaluation(tmp_path, measures=found, headlines=("ner/target/0.6",)))
    rates = [(m.judge, m.threshold) for m in made.rates if m.metric == "ner"]
    assert rates == [("one", 0.6), ("two", 0.6), ("all", 0.3)]
    assert [m.judge for m in made.rates if m.metric == "esr1"] == ["all"]


def test_the_alarms_of_attacks_and_what_speaks_against_them_are_in_the_record(folder: Path) -> None:
    write_attacks(folder)
    alarms = tuple(Alarm(name=n, raised_when="then", means="m", do="d") for n in ("zero gradients", "one judge alone"))
    change_attacks(folder, alarms=(*alarms, *record().alarms), targets=("dog",))
    made = takedown.build_takedown(folder)
    assert [a.name for a in made.alarms] == ["too hot", "zero gradients", "one judge alone"]
    assert "no attack was made on cat" in [u.why for u in made.untested]
