"""Which evaluations can be compared, and which attacks can stand in one record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from efface.records.basis import (
    Basis,
    require_before_attacking,
    require_before_evaluating,
    require_comparable,
    require_edit,
    require_same_basis,
    require_together,
)
from efface.records.report import Record
from report_fixtures import record, write_attacks, write_evaluation


def build_other(**changes: Any) -> Record:
    """An evaluation with other fields, or with other ones of its suite or its drawing."""
    plain = record()
    for part in ("suite", "drawing"):
        within = getattr(plain, part)
        held = {name: changes.pop(name) for name in list(changes) if name in type(within).model_fields}
        changes[part] = within.model_copy(update=held)
    return record(**changes)


def test_evaluations_of_other_methods_strengths_and_edits_are_comparable() -> None:
    require_comparable(record(), build_other(method="UCE", strength=0.5, edit="0" * 64, model="elsewhere"))
    require_comparable(record(), record())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps": 3}, "drawing.steps: 12 before, 3 now"),
        ({"version": "2"}, "suite.version: '1' before, '2' now"),
        ({"rows_digest": "0"}, f"rows: '{'f' * 32}' before, '0' now"),
        ({"rule": "One judge."}, "rule: 'The judges agree.' before, 'One judge.' now"),
        ({"protocol": {"name": "p", "version": "1"}}, "protocol: None before, {'name': 'p', 'version': '1'} now"),
    ],
)
def test_evaluations_in_different_ways_are_not_comparable(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match="ESD on cat and UCE on cat were evaluated in different ways") as found:
        require_comparable(record(), build_other(method="UCE", targets=("cat",), **change))
    assert f"({says})" in str(found.value)


def test_rows_are_compared_for_the_same_suite_and_targets_alone() -> None:
    another = {"targets": ("dog",), "rows_digest": "0"}
    require_comparable(record(), build_other(**another))
    require_comparable(record(), build_other(name="other suite", version="7", rows_digest="0"))
    with pytest.raises(ValueError, match="rows: "):
        require_comparable(record(), build_other(rows_digest="0"))
    with pytest.raises(ValueError, match=r"suite\.version: "):
        require_comparable(record(), build_other(targets=("dog",), version="2"))


def test_five_differences_are_told() -> None:
    many = {"steps": 1, "guidance": 1.0, "resolution": 8, "dtype": "x", "compute": "y", "scheduler": "z"}
    with pytest.raises(ValueError, match="different ways") as found:
        require_comparable(record(), build_other(**many))
    assert str(found.value).count(" before, ") == 5


def test_attacks_may_be_added_to_those_on_the_same_basis(tmp_path: Path) -> None:
    earlier = write_attacks(tmp_path)
    same: dict[str, Any] = {name: getattr(earlier, name) for name in ("targets", "suite", "scorers", "drawing")}
    elsewhere = earlier.drawing.model_copy(update={"model": "where it lies now"})
    groups = earlier.suite.model_copy(update={"groups": {"target": "of all"}, "licence": "", "source": ""})
    require_same_basis(earlier, {**same, "drawing": elsewhere, "suite": groups})
    for name, now, says in (
        ("targets", ("dog",), "another targets (('cat',) there, ('dog',) now)"),
        ("drawing", elsewhere.model_copy(update={"steps": 3}), "another drawing (steps: 12 there, 3 now)"),
        ("suite", groups.model_copy(update={"version": "2"}), "another suite (version: 1 there, 2 now)"),
        ("scorers", {**earlier.scorers, "third": {}}, "another scorers (third: None there, {} now)"),
    ):
        with pytest.raises(ValueError, match="a record has one; give another folder") as found:
            require_same_basis(earlier, {**same, name: now})
        assert says in str(found.value)


def test_a_base_without_a_fingerprint_is_no_known_base() -> None:
    one, none = Basis.of(record()), Basis.of(build_other(fingerprint={}))
    require_together(Path("f"), one, Basis.of(build_other(model="elsewhere")))
    with pytest.raises(ValueError, match="base with fingerprint aaaaaaaaaaaaaaaa…, the attacks on none…") as found:
        require_together(Path("f"), one, none)
    assert "suite" not in str(found.value)
    with pytest.raises(ValueError, match=r"guidance rescale 0\.0 in the evaluation, 0\.5 in the attacks"):
        require_together(Path("f"), one, Basis.of(build_other(guidance_rescale=0.5)))


def test_what_is_in_a_folder_is_asked_before_work_begins(tmp_path: Path) -> None:
    drawing, suite = record().drawing, record().suite
    strange = drawing.model_copy(update={"steps": 3})
    require_before_evaluating(tmp_path, strange, suite)
    require_before_attacking(tmp_path, strange, suite)
    write_attacks(tmp_path)
    require_before_evaluating(tmp_path, drawing, suite)
    require_before_attacking(tmp_path, strange, suite)
    with pytest.raises(ValueError, match="steps 3 in the evaluation, 12 in the attacks"):
        require_before_evaluating(tmp_path, strange, suite)
    made = write_evaluation(tmp_path / "evaluated")
    require_before_attacking(made, drawing, suite)
    with pytest.raises(ValueError, match="steps 12 in the evaluation, 3 in the attacks"):
        require_before_attacking(made, strange, suite)


def test_an_edit_is_known_by_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    require_edit(build_other(edit=nothing), tmp_path / "empty")
    with pytest.raises(ValueError, match=f"its sha256 is {nothing[:16]}…, and the evaluation was of {'e' * 16}…"):
        require_edit(record(), tmp_path / "empty")
