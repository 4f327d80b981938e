"""Merging, reverting and comparing edits."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch

import efface
from efface.cli.app import main
from efface.edits.edit import Edit, WrongBase, apply
from lora_fixtures import build_dense, build_low_rank, edit_with, is_same_change, mask
from tiny import tiny_model
from tiny_pixart import tiny_pixart


def list_weights_under(model, edits, strengths) -> dict[str, torch.Tensor]:
    with warnings.catch_warnings(action="ignore"), apply(model, edits, strengths):
        return {name: weight.detach().clone() for name, weight in model.weights.items()}


@pytest.mark.parametrize(
    "makes", [(build_low_rank, build_low_rank), (build_dense, mask), (build_low_rank, build_dense), (mask, mask)]
)
def test_a_merge_is_the_sum_of_its_edits(makes) -> None:
    model = tiny_model()
    edits = [makes[0](model, "attn2"), makes[1](model, "attn2.to_k", "attn1")]
    merged = efface.merge(model, edits, strengths=[0.5, 2.0])
    wanted, found = list_weights_under(model, edits, [0.5, 2.0]), list_weights_under(model, [merged], [1.0])
    assert all(torch.allclose(wanted[name], found[name], atol=1e-5) for name in wanted)
    if makes == (build_low_rank, build_low_rank):
        assert {key.partition(":")[2] for key in merged.values} == {"down", "up"}
    assert merged.meta["request"] == {"targets": ["cat"], "anchor": "dog", "keep": []}
    assert [part["strength"] for part in merged.meta["arguments"]["edits"]] == [0.5, 2.0]


def test_a_merge_of_edits_that_share_nothing_is_exact() -> None:
    model = tiny_model()
    edits = [build_dense(model, "attn2"), mask(model, "attn1")]
    merged = efface.merge(model, edits)
    wanted, found = list_weights_under(model, edits, None), list_weights_under(model, [merged], None)
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    assert merged.values.keys() == edits[0].values.keys() | edits[1].values.keys()


def test_the_record_of_a_merge_answers_all_requests() -> None:
    model = tiny_model()
    one, two = build_low_rank(model, "attn2"), build_dense(model, "attn1")
    other = {
        "request": {"targets": ["car"], "anchor": "", "keep": ["cat", "rose"]},
        "notes": {"candidates": {"car": ["a"]}},
    }
    merged = efface.merge(model, [one, Edit(two.values, {**two.meta, **other})])
    assert merged.meta["request"] == {"targets": ["cat", "car"], "anchor": "", "keep": ["rose"]}
    assert merged.meta["notes"]["candidates"] == {"car": ["a"]} and merged.meta["base"] == one.meta["base"]


@pytest.mark.parametrize("make", [build_low_rank, build_dense])
def test_an_edit_comes_off_a_merged_one(make, tmp_path: Path) -> None:
    model = tiny_model()
    stays, goes = make(model, "attn2"), make(model, "attn2.to_k", "attn1")
    merged = efface.merge(model, [stays, goes])
    done = efface.revert(model, merged, goes, tmp_path / "rest.safetensors")
    rest = Edit.load(tmp_path / "rest.safetensors")
    assert is_same_change(model, stays, rest, 1e-4) and not done["exact"]
    assert {n for n in rest.names if "attn1" in n} == set()
    with pytest.raises(ValueError, match="nothing is left: every weight would be the base's own again"):
        efface.revert(model, merged, merged, tmp_path / "none.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["rest.safetensors"]


@pytest.mark.parametrize("make", [build_low_rank, build_dense, mask])
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_an_edit_comes_off_a_folder_bit_for_bit(make, strength: float, tmp_path: Path) -> None:
    model = tiny_model()
    edit = make(model, "attn2")
    edit.export(model, tmp_path / "edited", strength)
    done = efface.revert(model, str(tmp_path / "edited"), edit, tmp_path / "back", strength=strength)
    assert done == {"out": str(tmp_path / "back"), "weights": len(edit.names), "exact": True}
    assert efface.load(str(tmp_path / "back"), "cpu").fingerprint() == model.fingerprint()


def test_what_else_was_done_to_a_folder_stays(tmp_path: Path) -> None:
    model = tiny_model()
    edit, more = build_dense(model, "attn2"), build_low_rank(model, "attn2.to_k", "attn1")
    efface.merge(model, [edit, more]).export(model, tmp_path / "edited")
    done = efface.revert(model, str(tmp_path / "edited"), edit, tmp_path / "back")
    back, wanted = efface.load(str(tmp_path / "back"), "cpu").weights, list_weights_under(model, [more], None)
    assert not done["exact"] and all(torch.allclose(back[name], wanted[name], atol=1e-6) for name in back)


def test_a_difference_says_which_tensors_and_which_text_paths() -> None:
    model = tiny_model()
    edit = build_low_rank(model, "attn2.to_k", "attn2.to_v", rank=1)
    found = efface.diff(model, edit)
    assert {each.name for each in found.tensors} == set(edit.names) and found.of == len(model.weights)
    first = found.tensors[0]
    delta = edit.values[f"{first.name}:up"] @ edit.values[f"{first.name}:down"]
    assert first.relative == pytest.approx(float(delta.norm() / model.weights[first.name].detach().norm()))
    assert first.rank == 1 and first.share == 1.0
    assert [each.relative for each in found.tensors] == sorted((e.relative for e in found.tensors), reverse=True)
    paths = {path.role: path for path in found.paths}
    assert paths["cross"].changed == paths["cross"].of == len(edit.names) and paths["text_encoder"].open


def test_a_difference_of_two_edits_is_what_they_do_not_share() -> None:
    model = tiny_model()
    one, two = build_low_rank(model, "attn2", "attn1"), build_low_rank(model, "attn2", "attn1")
    two = Edit({key: value for key, value in two.values.items() if "attn1" not in key}, two.meta)
    assert efface.diff(model, one, one).tensors == ()
    assert {each.name for each in efface.diff(model, one, two).tensors} == {n for n in one.names if "attn1" in n}


def test_an_embedder_that_stays_is_an_open_path() -> None:
    model = tiny_pixart()
    paths = {path.role: path.open for path in efface.diff(model, build_low_rank(model, "attn2.to_k")).paths}
    assert paths == {"cross": False, "embedder": True, "text_encoder": True}


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_model().save_pretrained(tmp_path / "base")
    model = efface.load(str(tmp_path / "base"), "cpu")
    files = [str(build_low_rank(model, part).save(tmp_path / f"{part}.safetensors")) for part in ("attn1", "attn2")]
    base = ["--model", str(tmp_path / "base")]
    both = str(tmp_path / "both.safetensors")
    asked = ["merge", *files, *base, "--out", both]
    assert main([*asked, "--strength", "1", "--strength", "0.5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"edit": both, "weights": len(Edit.load(both).names)}
    assert main(asked) == 2 and "add --overwrite" in capsys.readouterr().err
    rest = str(tmp_path / "rest.safetensors")
    assert main(["revert", both, *base, "--edit", files[1], "--strength", "0.5", "--out", rest]) == 0
    assert "is not the base" in capsys.readouterr().out
    assert main(["diff", rest, *base, "--other", files[0]]) == 0
    assert "0 of " in capsys.readouterr().out
    assert main(["diff", both, *base, "--top", "1"]) == 0
    out = capsys.readouterr().out
    assert "… and " in out and "text path text_encoder: OPEN, as it was" in out
    Edit.load(files[0]).export(model, tmp_path / "edited")
    assert main(["diff", str(tmp_path / "edited"), *base, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {each["name"] for each in found["tensors"]} == set(Edit.load(files[0]).names)
    assert main(["revert", str(tmp_path / "edited"), *base, "--edit", files[0], "--out", str(tmp_path / "again")]) == 0
    assert "is the base, bit for bit" in capsys.readouterr().out


def test_what_cannot_be_combined_is_refused_before_any_work(tmp_path: Path) -> None:
    model, other = tiny_model(), tiny_model(seed=1)
    edit = build_low_rank(model, "attn2")
    guide = Edit({}, {**edit.meta, "guide": {"name": "sld", "arguments": {}}})
    unknown = edit_with(model, {"unet.nowhere.weight": torch.ones(2)})
    with pytest.raises(ValueError, match="two edits or more, got 1"):
        efface.merge(model, [edit])
    with pytest.raises(ValueError, match="1 strength for 2 edits"):
        efface.merge(model, [edit, edit], strengths=[1.0])
    with pytest.raises(ValueError, match="an edit at strength 0 changes nothing; merge the others"):
        efface.merge(model, [edit, edit], strengths=[1.0, 0.0])
    for made in (edit, build_dense(model, "attn2")):
        with pytest.raises(ValueError, match="the edits cancel each other: together they change no weight"):
            efface.merge(model, [made, made], strengths=[1.0, -1.0])
    with pytest.raises(ValueError, match=r"is given twice, so its change would be added twice; .* the strength 1.5 if"):
        efface.merge(model, [edit, edit], strengths=[1.0, 0.5])
    file, copy = (str(edit.save(tmp_path / f"{name}.safetensors")) for name in ("one", "copy"))
    with pytest.raises(ValueError, match=r"one.safetensors and .*copy.safetensors are one edit, so its change"):
        efface.merge(model, [file, build_low_rank(model, "attn1"), copy])
    with pytest.raises(ValueError, match=r"an edit is a guide \(sld\)"):
        efface.merge(model, [edit, guide])
    with pytest.raises(WrongBase):
        efface.merge(model, [edit, build_low_rank(other, "attn2")])
    with pytest.raises(ValueError, match=r"changes 'unet.nowhere.weight', which 'tiny' lacks"):
        efface.merge(model, [edit, unknown])
    with pytest.raises(ValueError, match="is no part of the other, which does not change"):
        efface.revert(model, edit, build_low_rank(model, "attn1"), tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="does not suit what is reverted; name a file"):
        efface.revert(model, edit, edit, tmp_path / "x")
    (tmp_path / "x").mkdir()
    with pytest.raises(FileExistsError, match="exists already"):
        efface.revert(model, "base", edit, tmp_path / "x")
    with pytest.raises(ValueError, match="is no edited tiny"):
        efface.revert(model, tiny_pixart(), edit, tmp_path / "y")
    with pytest.raises(ValueError, match="is for an edit; leave it out, for a model is compared as it is"):
        efface.diff(model, other, strength=0.5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy.safetensors", "one.safetensors", "x"]


def test_an_edit_is_not_removed_from_what_does_not_contain_it(tmp_path: Path) -> None:
    """The base minus a change would be a model that nobody made, and that draws the target more than before."""
    model = tiny_model()
    edit, other = build_dense(model, "attn2"), build_dense(model, "attn2", "attn1")
    model.save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match="does not contain the edit: every weight that the edit changes is the base's"):
        efface.revert(model, str(tmp_path / "base"), edit, tmp_path / "x")
    other.export(model, tmp_path / "other")
    with pytest.warns(UserWarning, match=r"seems to contain the edit at a strength of -?0\.[0-4]., and 1 of it was"):
        efface.revert(model, str(tmp_path / "other"), edit, tmp_path / "y")
    edit.export(model, tmp_path / "half", 0.25)
    with pytest.warns(UserWarning, match=r"seems to contain the edit at a strength of 0\.25, and 1 of it was removed"):
        efface.revert(model, str(tmp_path / "half"), edit, tmp_path / "z")
    with pytest.warns(UserWarning, match=r"the merged edit seems to contain the edit at a strength of -?0\.[0-4]"):
        efface.revert(model, other, edit, tmp_path / "x.safetensors")
    assert not (tmp_path / "x").exists()


def test_what_needs_no_model_is_refused_before_one_is_opened(tmp_path: Path) -> None:
    """The model that these calls name does not exist, which would be said if it were opened."""
    edit = build_low_rank(tiny_model(), "attn2")
    guide = Edit({}, {**edit.meta, "guide": {"name": "sld", "arguments": {}}})
    out, lost = tmp_path / "x.safetensors", tmp_path / "lost.safetensors"
    for strength in (float("nan"), 11.0):
        for call in (
            lambda s: efface.merge("nowhere", [edit, edit], strengths=[1.0, s]),
            lambda s: efface.revert("nowhere", edit, edit, out, strength=s),
            lambda s: efface.diff("nowhere", edit, strength=s),
        ):
            with pytest.raises(ValueError, match="a strength is a number from -10 to 10"):
                call(strength)
    for refused in (
        lambda: efface.merge("nowhere", [edit, guide]),
        lambda: efface.revert("nowhere", "other", guide, tmp_path / "x"),
        lambda: efface.diff("nowhere", edit, guide),
    ):
        with pytest.raises(ValueError, match=r"an edit is a guide \(sld\)"):
            refused()
    # A file that is not there is no model's name.
    for missing in (lambda: efface.revert("nowhere", lost, edit, out), lambda: efface.diff("nowhere", lost)):
        with pytest.raises(FileNotFoundError, match=r"no file .*lost.safetensors"):
            missing()
    assert not list(tmp_path.iterdir())
