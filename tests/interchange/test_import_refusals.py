"""Files of other tools that can't be imported: what is said of each, before a model is opened where none is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

import efface
from efface.api.exporting import write_export
from efface.edits.edit import Edit
from efface.models.base import Model
from lora_fixtures import build_low_rank, is_same_change
from tiny import tiny_model
from tiny_ddpm import tiny_ddpm
from tiny_sdxl import tiny_sdxl


def list_broken(folder: Path, model: Model) -> dict[str, tuple[Path, str]]:
    """Files that can't be read, with what is said of each."""
    edit = build_low_rank(model, "attn2.to_k")
    write_export(model, edit, folder / "good.safetensors", format="kohya", pictures=0)
    good = load_file(folder / "good.safetensors")
    first = min(good).partition(".")[0]
    strange = {**good, "lora_unet_nowhere.lora_down.weight": torch.ones(2, 3)}
    halved = {k: v for k, v in good.items() if k != f"{first}.lora_up.weight"}
    longer = {**good, f"{first}.lora_down.weight": torch.ones(2, 99)}
    dora = {**good, f"{first}.dora_scale": torch.ones(3)}
    found = {}
    for name, held, says in (
        ("strange", strange, r"1 of the file's \d+ layers fit none of tiny \(sd\), first 'lora_unet_nowhere'"),
        ("halved", halved, "a pair of down and up"),
        ("longer", longer, r"is a product \[\d+, 99\], the model's is"),
        ("dora", dora, "the file holds DoRA, which is no product of two matrices"),
        (
            "flat",
            {**good, f"{first}.lora_up.weight": torch.ones(2)},
            r"has down .*, up \(2,\), alpha .*would have worked",
        ),
        (
            "alphas",
            {**good, f"{first}.alpha": torch.ones(3)},
            r"alpha \(3,\); down \[rank, in\], up .* one alpha would",
        ),
        ("lost", {**good, f"{first}.alpha": torch.tensor(torch.nan)}, "alpha' holds NaN or infinite numbers"),
        (
            "nothing",
            {f"{first}.lora_down.weight": torch.ones(0, 16), f"{first}.lora_up.weight": torch.ones(16, 0)},
            "has down",
        ),
        ("scalar", {"conv_in.weight": torch.tensor(1.0)}, r"'conv_in.weight' is \(\), the model's is"),
        ("integer", {"conv_in.weight": torch.ones(8, 4, 3, 3, dtype=torch.int64)}, "holds int64, where floating-point"),
        ("nan", {"conv_in.weight": torch.full((8, 4, 3, 3), torch.nan)}, "'conv_in.weight' holds NaN or infinite"),
        ("difference", {f"{first}.diff": torch.tensor(1.0)}, r"diff' is \(\), the model's is"),
        ("vae", {"encoder.conv_in.weight": torch.ones(3)}, "1 of the file's 1 tensors fit none of tiny"),
        ("shape", {"conv_in.weight": torch.ones(3, 3)}, r"'conv_in.weight' is \(3, 3\), the model's is"),
        ("same", {"conv_in.weight": model.weights["unet.conv_in.weight"].detach().clone()}, "changes nothing of tiny"),
    ):
        save_file(held, folder / f"{name}.safetensors")
        found[name] = (folder / f"{name}.safetensors", says)
    (folder / "cut.safetensors").write_bytes((folder / "good.safetensors").read_bytes()[:-5])
    torch.save(model.network, folder / "module.pt")
    torch.save({"steps": 3}, folder / "empty.pt")
    edit.save(folder / "edit.safetensors")
    tiny_sdxl().save_pretrained(folder / "xl")
    (folder / "bare").mkdir()
    return found | {
        "cut": (folder / "cut.safetensors", "truncated or no safetensors file"),
        "module": (folder / "module.pt", "can't be opened with weights_only .* as state_dict"),
        "empty": (folder / "empty.pt", "holds no tensors by name"),
        "edit": (folder / "edit.safetensors", "is an edit of efface already"),
        "other": (folder / "xl", r"xl \(sdxl\) is no fine-tuned tiny \(sd\)"),
        "bare": (folder / "bare", "holds 0 files of weights and no model_index.json"),
    }


def test_what_fits_no_model_is_refused(tmp_path: Path) -> None:
    model = tiny_model()
    for file, says in list_broken(tmp_path, model).values():
        with pytest.raises(ValueError, match=says):
            efface.import_edit(model, file, "cat", unpickle=True)
    with pytest.raises(ValueError, match=r"is a pickle, which can run code when it is opened; --pickle"):
        efface.import_edit(model, tmp_path / "module.pt", "cat")
    with pytest.raises(ValueError, match="does not say what it erases; name it with --target"):
        bare = load_file(tmp_path / "good.safetensors")
        save_file(bare, tmp_path / "bare.safetensors")
        efface.import_edit(model, tmp_path / "bare.safetensors")
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        efface.import_edit(model, tmp_path / "none", "cat")
    with pytest.raises(ValueError, match="fit none of"):
        efface.import_edit(tiny_ddpm("v_prediction"), tmp_path / "good.safetensors", "cat")


def test_what_needs_no_model_is_refused_before_one_is_opened(tmp_path: Path) -> None:
    """The model that these calls name does not exist, which would be said if it were opened."""
    model = tiny_model()
    list_broken(tmp_path, model)
    save_file(load_file(tmp_path / "good.safetensors"), tmp_path / "unnamed.safetensors")
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    (tmp_path / "told").mkdir()
    (tmp_path / "told" / "model_index.json").write_text("{}")
    (tmp_path / "told" / "efface.json").write_text('{"edit": {"request": {"targets": "cat"}}}')
    for name, says in (
        ("module.pt", "is a pickle"),
        ("cut.safetensors", "truncated"),
        ("edit.safetensors", "is an edit of efface already"),
        ("bare", "holds 0 files of weights"),
        ("unnamed.safetensors", "does not say what it erases; name it with --target"),
        ("pipeline", "does not say what it erases; name it with --target"),
        ("told", r"efface.json is damaged: its record of the edit .*request.targets"),
    ):
        with pytest.raises(ValueError, match=says):
            efface.import_edit("nowhere", tmp_path / name)


@pytest.mark.parametrize(
    ("ends", "kind"),
    [
        (("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), "LoHa"),
        (("lokr_w1", "lokr_w2"), "LoKr"),
        (("lokr_w2_a", "lokr_w2_b"), "LoKr"),
        (("oft_R.weight",), "OFT"),
        (("a1.weight", "a2.weight", "b1.weight", "b2.weight"), "GLoRA"),
    ],
)
def test_a_form_that_is_no_product_is_refused_by_its_name(ends: tuple[str, ...], kind: str, tmp_path: Path) -> None:
    """Also where the file holds nothing else."""
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    save_file({f"{layer}.{end}": torch.ones(4, 4) for end in (*ends, "alpha")}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=f"the file holds {kind}, which is no product of two matrices"):
        efface.import_edit(tiny_model(), tmp_path / "x.safetensors", "cat")


@pytest.mark.parametrize("begun", ["pissa", "pissa_niter_4", "olora"])
def test_a_lora_that_took_a_part_of_the_base_away_is_refused(begun: str, tmp_path: Path) -> None:
    targets = ["attentions.0.transformer_blocks.0.attn2.to_k"]
    config = LoraConfig(r=2, lora_alpha=4, init_lora_weights=begun, target_modules=targets)  # type: ignore[arg-type]
    unet: Any = tiny_model().network
    get_peft_model(unet, config).save_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match=f"init_lora_weights '{begun}', which takes a part of the base's weights away"):
        efface.import_edit(tiny_model(), tmp_path, "cat")


def test_a_model_that_predicts_in_another_space_is_refused(tmp_path: Path) -> None:
    tiny_model("v_prediction").save_pretrained(tmp_path / "v")
    with pytest.raises(ValueError, match=r"predicts v by its scheduler, and tiny noise: .*prediction_type"):
        efface.import_edit(tiny_model(), tmp_path / "v", "cat")
    held = {"conv_in.weight": torch.ones(8, 4, 3, 3), "v_pred": torch.empty(0)}
    save_file(held, tmp_path / "v.safetensors")
    with pytest.raises(ValueError, match="says by its key v_pred that its network predicts v, and tiny predicts noise"):
        efface.import_edit(tiny_model(), tmp_path / "v.safetensors", "cat")
    with pytest.warns(UserWarning, match="first 'v_pred'"):
        assert efface.import_edit(tiny_model("v_prediction"), tmp_path / "v.safetensors", "cat").names


@pytest.mark.parametrize("format", ["diffusers", "single-file", "comfy", "kohya"])
def test_an_export_is_imported_to_its_own_base(format: Any, tmp_path: Path) -> None:
    """Whole weights of another base hold the difference of the bases too; a LoRA holds the edit's change alone."""
    model, other = tiny_model(), tiny_model(seed=1)
    edit = build_low_rank(model, "attn2")
    out = tmp_path / ("x" if format == "diffusers" else "x.safetensors")
    write_export(model, edit, out, format=format, pictures=0)
    if format in ("diffusers", "single-file"):
        with pytest.raises(ValueError, match=r"was exported for the base 'tiny', .* difference of the two"):
            efface.import_edit(other, out)
        return
    with pytest.warns(UserWarning, match="was exported for the base 'tiny', .* was not measured"):
        back = efface.import_edit(other, out)
    assert is_same_change(model, edit, Edit(back.values, edit.meta)) and back.meta["base"] == other.fingerprint()
