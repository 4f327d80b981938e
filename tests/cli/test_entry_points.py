"""An installed package adds a method, an attack, a scorer and a suite, to the library and to the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

import efface
from efface import catalog
from efface.cli.app import main
from efface.edits.edit import Edit
from efface.edits.provenance import check_same_run
from installed_package import installed as installed
from installed_package import model as model

pytestmark = pytest.mark.usefixtures("few_steps")


def test_what_a_package_brings_is_listed_without_importing_it(
    installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = {"methods": "fade", "attacks": "shout", "scorers": "parity", "suites": "four-animals"}
    for what, name in wanted.items():
        assert main(["list", what, "--json"]) == 0
        rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
        assert rows[name]["about"]
    assert rows["four-animals"]["about"].startswith("One of four animals")
    assert not any(name.startswith("outsiders") for name in sys.modules)
    assert efface_kinds() == ("closed form", False)


def efface_kinds() -> tuple[str, bool]:
    from efface.methods import find_capabilities

    can = find_capabilities("fade")
    return can.kind, can.several


def test_it_is_used_through_the_library(installed: Path, model: str, tmp_path: Path) -> None:
    opened = efface.load(model, "cpu")
    edit = efface.erase(opened, "cat", "fade", share=0.25, progress=False)
    kind = catalog.METHODS.get("fade")
    assert edit.meta["arguments"] == {"share": 0.25}
    for given in (kind, kind(share=0.25)):
        again = efface.erase(opened, "cat", given, share=0.25, progress=False)
        assert all(torch.equal(again.values[name], value) for name, value in edit.values.items())
    told: list[str] = []
    out = tmp_path / "out"
    record = efface.evaluate(
        opened, edit, out, "four-animals", scorers=["parity"], progress=lambda stage, *_: told.append(stage)
    )
    assert record.suite.name == "four-animals" and list(record.scorers) == ["parity"] and "judging" in told
    parity = catalog.SCORERS.get("parity")
    found = efface.attack(opened, edit, out, "four-animals", attacks="shout", scorers=[parity()], progress=False)
    assert [m.attack for m in found.measures if m.condition == "target"] == ["random-prefix", "shout"]
    assert Edit.load(out / "edit.safetensors").same_as(edit)


def test_it_is_used_on_the_command_line(installed: Path, model: str, tmp_path: Path) -> None:
    edit, out = tmp_path / "cat.safetensors", str(tmp_path / "out")
    assert main(["erase", "fade", "--model", model, "--target", "cat", "--share", "0.25", "--out", str(edit)]) == 0
    case = ["--model", model, "--edit", str(edit), "--suite", "four-animals", "--scorer", "parity", "--out", out]
    assert main(["evaluate", *case]) == 0
    assert main(["attack", *case, "--attack", "shout"]) == 0
    assert json.loads((tmp_path / "out" / "attacks.json").read_text())["scorers"].keys() == {"parity"}


def test_the_records_say_which_package_brought_a_method_an_attack_and_a_scorer(
    installed: Path, model: str, tmp_path: Path
) -> None:
    opened, out = efface.load(model, "cpu"), tmp_path / "out"
    efface.erase(opened, "cat", "fade", progress=False).save(tmp_path / "cat.safetensors")
    edit = Edit.load(tmp_path / "cat.safetensors")
    brought = edit.meta["origin"]["outsiders.fade"]
    assert brought["package"] == "outsiders 1.0" and len(brought["code"]) == 64
    record = efface.evaluate(opened, edit, out, "four-animals", scorers=["parity", "artefact"], progress=False)
    attacked = efface.attack(opened, edit, out, "four-animals", attacks="shout", scorers=["parity"], progress=False)
    for scorers in (record.scorers, attacked.scorers):
        assert (scorers["parity"]["module"], scorers["parity"]["package"]) == ("outsiders.parity", "outsiders 1.0")
    assert not {"module", "package", "code"} & record.scorers["artefact"].keys()
    measures = {m["attack"]: m for m in json.loads((out / "attacks.json").read_text())["measures"]}
    assert measures["shout"]["origin"]["module"] == "outsiders.shout"
    assert measures["shout"]["origin"]["package"] == "outsiders 1.0"
    assert "origin" not in measures["random-prefix"]
    assert "origin" not in efface.erase(opened, "cat", "uce", progress=False).meta


def test_a_checkpoint_of_another_source_is_refused_and_one_of_an_earlier_version_read(tmp_path: Path) -> None:
    ours = {"method": "Fade", "origin": {"outsiders.fade": {"package": "outsiders 1.0", "code": "b"}}}
    check_same_run(tmp_path, ours, ours)
    check_same_run(tmp_path, {"method": "Fade"}, ours)
    with pytest.raises(ValueError, match="differs in origin"):
        check_same_run(tmp_path, {"method": "Fade", "origin": {"outsiders.fade": {"code": "a"}}}, ours)


def test_a_name_that_is_taken_stays_with_efface(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (installed / "outsiders-1.0.dist-info" / "entry_points.txt").write_text(
        "[efface.methods]\nesd = outsiders.fade:Fade\n"
    )
    monkeypatch.syspath_prepend(str(installed / "outsiders"))  # another path is looked through anew
    assert "outsiders brings the method 'esd', a name that is taken" in catalog.METHODS.list_broken()["esd"]
    assert catalog.METHODS.find_entry("esd").package == ""
