"""An exported folder says what it is, holds the edit's record, and names no place of the machine that made it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import efface
from efface.api.exporting import Exported
from efface.api.handing_on import hide_folder
from efface.cli.app import main
from efface.cli.export import tell_export
from efface.models.adapters.sd import StableDiffusion


def test_a_folder_has_a_card_and_the_edits_record_and_no_path_of_this_machine(
    eps_model: StableDiffusion, tmp_path: Path
) -> None:
    eps_model.save_pretrained(tmp_path / "base")
    base = efface.load(str(tmp_path / "base"))
    edit = efface.erase(base, "cat", "uce", keep="dog")
    out = efface.export(base, edit, tmp_path / "out", strength=0.5)
    card = (out / "README.md").read_text()
    assert "base_model: base" in card and "no longer draws **cat**" in card and "Asked to keep: dog" in card
    assert "UCE" in card and "at strength 0.5" in card
    record = json.loads((out / "efface.json").read_text())
    assert record["edit"]["request"]["targets"] == ["cat"] and record["strength"] == 0.5
    assert record["edit"]["base"] and record["edit"]["arguments"]
    texts = [p.read_text() for p in out.rglob("*") if p.suffix in (".json", ".md")]
    assert len(texts) > 5 and not [t for t in texts if str(tmp_path) in t]
    # It opens, and draws as the edited model does.
    with edit.apply(base, 0.5):
        expected = base.images("a cat", [1], steps=2)
    assert (efface.load(str(out)).images("a cat", [1], steps=2).int() - expected.int()).abs().max() <= 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "out"]


def test_a_hub_id_stays_whole_and_a_path_is_its_last_part(tmp_path: Path) -> None:
    assert hide_folder("stabilityai/sdxl-turbo") == "stabilityai/sdxl-turbo"
    assert hide_folder(str(tmp_path / "my model")) == "my model" and hide_folder("glyphs") == "glyphs"


@pytest.mark.parametrize(
    ("format", "architecture", "says"),
    [
        ("lora", "sd", "keeps more, --format comfy all"),
        ("comfy", "sd", "keeps more, neither of them all"),
        ("kohya", "flux2", "keeps more, --format diffusers all"),
    ],
)
def test_what_a_low_rank_leaves_out_is_kept_by_a_format_that_the_architecture_has(
    format: str, architecture: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    about = {"architecture": architecture, "lowest_rank": 1, "rank": 2, "left_out": [], "reader": "x", "matched": 3}
    about |= {"residual": 0.5, "worst_residual": 0.6, "worst_weight": "w", "gap": None}
    about |= {"format": format, "absent": [], "call": {}}
    tell_export(Exported(Path("x"), Path("x.json"), format, about))  # type: ignore[arg-type]
    assert says in capsys.readouterr().err


def test_a_model_in_the_current_folder_is_exported_with_its_name_and_whole_numbers(
    eps_model: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eps_model.save_pretrained(tmp_path / "models" / "tiny")
    base = efface.load(tmp_path / "models" / "tiny", "cpu")
    edit = efface.erase(base, "cat", "uce", erase_scale=1.25).save(tmp_path / "cat.safetensors")
    monkeypatch.chdir(tmp_path / "models" / "tiny")
    for name in (".", f"..{os.sep}tiny"):
        out = efface.export(name, edit, tmp_path / f"out{len(name)}", strength=0.5, pictures=0)
        text = (out / "efface.json").read_text(encoding="utf-8")
        record = json.loads(text)
        assert record["model"] == record["edit"]["model"] == "tiny" and str(tmp_path) not in text
        assert record["strength"] == 0.5 and record["edit"]["arguments"]["erase_scale"] == 1.25
        assert "base_model: tiny" in (out / "README.md").read_text(encoding="utf-8")
    assert hide_folder("a/b/c") == "c" and hide_folder("/m/x.safetensors@/home/me/sd") == "x.safetensors@sd"


def test_the_name_of_out_decides_the_format_of_the_command_as_of_the_function(
    eps_model: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def write_export(*_: object, format: object, **more: object) -> None:
        asked.append(format)
        raise ValueError("enough")

    monkeypatch.setattr("efface.api.exporting.write_export", write_export)
    (tmp_path / "cat.safetensors").touch()
    command = ["export", "--model", "glyphs", "--edit", str(tmp_path / "cat.safetensors"), "--out", "x.safetensors"]
    assert main(command) == 2 and main([*command, "--format", "lora"]) == 2
    assert asked == [None, "lora"]
