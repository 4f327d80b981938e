"""`efface neurons` and the table of methods, as a user meets them; and the example of CONTRIBUTING.md."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

import efface
from efface import methods
from efface.cli.app import main
from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.edits.provenance import describe_run
from efface.models.adapters.sd import StableDiffusion
from efface.models.loading import load
from tiny import tiny_pipeline

QUICK = ("--count", "2", "--timesteps", "2", "--steps", "4", "--draws", "20", "--top", "0.2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("neurons") / "model"
    tiny_pipeline().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def edits(model: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    base, folder = load(model), tmp_path_factory.mktemp("edits")
    made = []
    for scale in (0.5, 0.0):
        values = {name: scale * w.detach() for name, w in base.weights.items() if ".attn2.to_v." in name}
        edit = Edit(values, describe_run(base, Erasure(("cat",)), "test", {}))
        made.append(str(edit.save(folder / f"{scale}.safetensors")))
    return made


def test_neurons_writes_numbers_and_a_page(
    model: str, edits: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--model", model, "--edit", edits[0], "--compare", edits[1], "--concept", "cat", "--out", str(tmp_path)]
    args += ["--adversarial", "a red cat", "--adversarial", "lion", *QUICK]
    assert main(["neurons", *args, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    kept = json.loads((tmp_path / "neurons.json").read_text())
    assert {**kept, "report": told["report"]} == told
    assert list(kept["models"]) == ["base", *edits]
    assert len(kept["rho"]) == len(kept["neurons"]) == len(kept["models"]["base"]["delta"])
    assert len(kept["timesteps"]) == 2 and kept["look"]["seeds"] == 2
    # Attention to nothing: no prompt makes a difference where all values are zero.
    silent = [i for i, name in enumerate(kept["neurons"]) if "attn2" in name]
    assert all(kept["models"][edits[1]]["delta"][i] == 0 for i in silent if "down_blocks.0" in kept["neurons"][i])
    assert max(kept["models"]["base"]["delta"]) > 0
    assert Path(told["report"]).read_text().startswith("<!doctype html>")
    assert main(["neurons", *args]) == 0
    assert "neurons carry the concept" in capsys.readouterr().out


BAD = {
    "no adversarial": ([], "no adversarial prompt"),
    "twice": (["--adversarial", "dog", "--compare", "{edit}"], "named twice"),
    "share": (["--adversarial", "dog", "--top", "2"], "above 0 and below 1"),
    "count": (["--adversarial", "dog", "--count", "0"], "at least 1"),
    "layers": (["--adversarial", "dog", "--layers", "nowhere"], "no layer of"),
    "timesteps": (["--adversarial", "dog", "--timesteps", "9", "--steps", "3"], "9 timesteps of a trajectory of 3"),
    "same": (["--adversarial", "cat"], "at least one other"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_message_and_exit_2(
    case: str, model: str, edits: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args, says = BAD[case]
    given = ["--model", model, "--edit", edits[0], "--concept", "cat", "--out", str(tmp_path)]
    assert main(["neurons", *given, *(each.format(edit=edits[0]) for each in args)]) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_table_of_methods(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "methods"]) == 0
    table, _, advice = capsys.readouterr().out.partition("\n\n")
    head, *lines = table.splitlines()
    assert head.split() == ["name", "kind", "serves", "anchor", "keep", "images", "several"]
    assert [line.split()[0] for line in lines if line[0] != " "] == methods.list_names()
    assert max(map(len, [head, *lines, *advice.splitlines()])) <= 80
    assert advice.startswith("Which to take: esd or eap")
    assert main(["list", "methods", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["p-ac"]["anchor"] == "needed" and rows["advunlearn"]["architectures"] == ["sd", "sdxl", "sd3"]
    assert rows["uce"]["kind"] == "closed form" and rows["sld"]["kind"] == "inference time"
    assert rows["erasediff"]["images"] == "optional" and rows["esd"]["keep"] == "no"


def test_either_spelling_and_compositions_on_the_command_line(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / f"{i}.safetensors" for i in range(3)]
    short = ["--model", model, "--target", "cat", "--steps", "2", "--draw-steps", "2", "--lr", "0.5", "--start", "0.4"]
    short += ["--beta", "1e-9"]
    for name, out in (("p-esd", files[0]), ("p_esd", files[1])):
        assert main(["erase", name, *short, "--out", str(out)]) == 0
    assert main(["erase", "compose", "--update", "mask", *short, "--out", str(files[2])]) == 0
    one, two, three = (Edit.load(file).values for file in files)
    assert one and one.keys() == two.keys() == three.keys()
    assert all(torch.equal(one[key], two[key]) and torch.equal(one[key], three[key]) for key in one)
    assert main(["erase", "compose", *short, "--out", str(tmp_path / "bad.safetensors")]) == 2
    assert "update mask would use it" in capsys.readouterr().err


def test_the_example_of_the_guide_is_a_method(
    tmp_path: Path, eps_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    guide = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", guide, flags=re.DOTALL)
    (tmp_path / "halfway.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    assert methods.describe("halfway").startswith("Halfway: the target is drawn as the anchor is")
    can = methods.find_capabilities("halfway")
    assert (can.kind, can.anchor, can.keep) == ("trained", "needed", "no")
    settings = {"steps": 2, "draw_steps": 2, "paths": 2, "source": "frozen", "lr": 1e-2}
    request = Erasure(("cat",), anchor="dog")
    edit = efface.erase(eps_model, request, "halfway", **settings)
    assert edit.names and {key.rpartition(":")[2] for key in edit.values} == {"up", "down"}
    composed = {"objective": "anchor", "preserve": "unconditional", "update": "low-rank", "rank": 4}
    same = efface.erase(eps_model, request, "compose", **settings, **composed)
    assert all(torch.equal(value, same.values[key]) for key, value in edit.values.items())
    with pytest.raises(ValueError, match="name one"):
        efface.erase(eps_model, "cat", "halfway", **settings)
    assert main(["list", "methods"]) == 0
    assert "halfway" in capsys.readouterr().out


def test_neurons_of_a_model_in_half_the_bytes(model: str, edits: list[str], tmp_path: Path) -> None:
    """In bf16 the same neurons differ by about as much."""
    found = {}
    for dtype in ("fp32", "bf16"):
        args = ["--model", model, "--edit", edits[0], "--concept", "cat", "--adversarial", "lion", *QUICK]
        args += ["--out", str(tmp_path / dtype)]
        assert main(["neurons", *args, "--dtype", dtype]) == 0
        found[dtype] = json.loads((tmp_path / dtype / "neurons.json").read_text())["models"]["base"]["delta"]
    pair = torch.tensor([found["fp32"], found["bf16"]])
    assert not torch.equal(pair[0], pair[1])
    assert torch.corrcoef(pair)[0, 1] > 0.9
