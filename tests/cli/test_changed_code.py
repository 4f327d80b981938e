"""Scores and attacks by code of another package are made again where its source changes under the same version."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import efface
from installed_package import ATTACK, SCORER, change
from installed_package import installed as installed
from installed_package import model as model

pytestmark = pytest.mark.usefixtures("few_steps")
SEEN = '"nothing" if int(image.long().sum()) % 2 else row.concept'


def test_a_changed_scorer_answers_anew(installed: Path, model: str, tmp_path: Path) -> None:
    place, opened = installed / "outsiders", efface.load(model, "cpu")
    edit = efface.erase(opened, "cat", "fade", progress=False)

    def judge() -> set[float | None]:
        out = tmp_path / "out"
        record = efface.evaluate(opened, edit, out, "four-animals", scorers=["parity"], progress=False)
        return {m.edited.value for m in record.measures if m.group == "target" and m.judge == "parity"}

    change(place, "parity.py", SCORER.replace(SEEN, "row.concept"))
    before = judge()
    change(place, "parity.py", SCORER.replace(SEEN, '"nothing"'))
    assert before != judge()


def test_a_changed_attack_is_made_anew(installed: Path, model: str, tmp_path: Path) -> None:
    place, opened, out = installed / "outsiders", efface.load(model, "cpu"), tmp_path / "out"
    edit = efface.erase(opened, "cat", "fade", progress=False)

    def attack() -> int:
        efface.attack(opened, edit, out, "four-animals", attacks="shout", scorers=["parity"], progress=False)
        return getattr(sys.modules.get("outsiders.shout"), "CALLS", 0)

    counted = (
        ATTACK.replace("        yield", "        global CALLS\n        CALLS += 1\n        yield") + "\n\nCALLS = 0\n"
    )
    change(place, "shout.py", counted)
    assert attack() > 0
    change(place, "shout.py", counted + "# once more\n")
    assert attack() == 0
    change(place, "shout.py", counted.replace(".upper()", ".lower()"))
    assert attack() > 0
