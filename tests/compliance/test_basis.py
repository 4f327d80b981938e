"""One place decides what belongs together, and report, gate, record and whoever adds to a folder ask it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from basis_fixtures import READERS, change_attacks
from efface.compliance import gate, takedown
from efface.compliance.rules import parse_rule
from efface.evaluation.alarms import warn_of_left_out
from efface.records.basis import read_results
from report_fixtures import record, write_evaluation

OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "edit": ({"edit": "9" * 64}, f"edit with sha256 {'e' * 16}…, the attacks of {'9' * 16}…"),
    "base": ({"fingerprint": {"fp32": "9" * 32}}, f"fingerprint {'a' * 16}…, the attacks on {'9' * 16}…"),
    "strength": ({"strength": 0.5}, "strength 1.0 in the evaluation, 0.5 in the attacks"),
    "steps": ({"steps": 3}, "steps 12 in the evaluation, 3 in the attacks"),
    "guidance": ({"guidance": 1.0}, "guidance 3.0 in the evaluation, 1.0 in the attacks"),
    "suite": (
        {"suite": record().suite.model_copy(update={"version": "7"})},
        "suite made-up 1 in the evaluation, made-",
    ),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("case", OTHER)
def test_attacks_of_another_basis_beside_an_evaluation_are_refused(case: str, reader: str, folder: Path) -> None:
    """Case 57: both hashes, or both settings, are in the sentence."""
    changes, says = OTHER[case]
    change_attacks(folder, **changes)
    with pytest.raises(ValueError, match="do not belong to the evaluation there") as found:
        READERS[reader](folder)
    assert says in str(found.value)
    assert not (folder / "takedown.json").exists() and not (folder.parent / "page.html").exists()


def test_one_cast_of_the_base_in_common_is_the_same_base(folder: Path) -> None:
    change_attacks(folder, fingerprint={"fp16": "b" * 32, "fp32": "9" * 32}, model="where it lies now")
    assert read_results(folder).attacks is not None


def test_a_record_takes_the_edit_from_where_it_was_evaluated(tmp_path: Path) -> None:
    """Case 30, its part of the record; the commands' part is in tests/cli/test_record.py."""
    made = write_evaluation(tmp_path / "e")
    (tmp_path / "other.safetensors").write_bytes(b"another edit")
    (made / "protocol.json").write_text(json.dumps({"images": "images", "edit": "../other.safetensors"}))
    with pytest.raises(ValueError, match=f"is not the edit that was judged: .* evaluation was of {'e' * 16}…"):
        takedown.build_takedown(made)
    (tmp_path / "other.safetensors").unlink()
    assert takedown.build_takedown(made).edit_file == ""


def test_a_policy_speaks_of_all_kept_things_and_not_of_those_that_were_drawn(tmp_path: Path) -> None:
    """Drawing the groups alone that lose least does not make a gate pass."""
    left = warn_of_left_out({"neighbour": "near things", "unseen": "never seen"}, ["unseen"])
    assert warn_of_left_out({"neighbour": "near things"}, []) == ()
    assert warn_of_left_out({"neighbour": "near things"}, ["neighbour"]) == ()
    kept = [m for m in record().measures if m.group == "unseen"]
    whole, part = record(kept), record(kept, alarms=left)
    rule, own = parse_rule("psr1_drop>0.05"), parse_rule("psr1_drop@unseen>0.05")
    assert gate.verify(whole, (), [rule]).outcome == "holds"
    found = gate.verify(part, (), [rule])
    assert found.outcome == "unjudged" and "they were not drawn: near things" in found.findings[0].says
    assert gate.verify(part, (), [own]).outcome == "holds" and gate.verify(part, [rule]).outcome == "holds"
