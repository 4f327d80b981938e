"""A base in 4 or 8 bits: what is refused before any work, and the low-rank road, on layers that stand in for a GPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import efface
from efface import attacks, methods
from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.models.adapters.flux import Flux
from efface.models.fingerprint import compute_digests
from efface.models.quantised import check_quantise, find_stored, is_packed, list_scales, serve_swaps
from efface.planning.estimating import estimate_from_shapes
from efface.robustness.run import check_attack
from tiny_fits import build_quick
from tiny_flux import tiny_flux, tiny_flux_pipeline


class Params4bit(nn.Parameter):
    """As bitsandbytes' class of this name: two numbers a byte, and a state by which they are unpacked."""

    quant_state: Any


class Linear4bit(nn.Linear):
    """As bitsandbytes' layer: multiplies by the weight that its bits stand for, and by no other."""

    def forward(self, x: Tensor) -> Tensor:
        weight: Any = self.weight
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return nn.functional.linear(x, dequantize_4bit(weight.data, weight.quant_state).to(x.dtype), bias)


def quantize_4bit(weight: Tensor) -> tuple[Tensor, Any]:
    """16 even levels a row, two to a byte; the largest of each row is its scale."""
    scale = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
    level = ((weight / scale + 1) * 7.5).round().to(torch.uint8).flatten()
    return (level[::2] * 16 + level[1::2]).view(-1, 1), SimpleNamespace(absmax=scale, shape=weight.shape, state2=None)


def dequantize_4bit(packed: Tensor, state: Any) -> Tensor:
    level = torch.stack([packed.flatten() // 16, packed.flatten() % 16], dim=1).flatten().float()
    return (level / 7.5 - 1).view(state.shape) * state.absmax


@pytest.fixture(autouse=True)
def bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    package, part = ModuleType("bitsandbytes"), ModuleType("bitsandbytes.functional")
    part.dequantize_4bit = dequantize_4bit  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bitsandbytes", package)
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", part)
    yield


def in_4_bits(folder: Path) -> tuple[Flux, Flux]:
    """The same tiny FLUX.1, plain and with the linear layers of its blocks in 4 bits."""
    plain = tiny_flux()
    pipeline = tiny_flux_pipeline()
    for name, layer in list(pipeline.transformer.named_modules()):
        if type(layer) is nn.Linear and "transformer_blocks" in name:
            made = Linear4bit(layer.in_features, layer.out_features, layer.bias is not None)
            packed, state = quantize_4bit(layer.weight.detach())
            made.weight = Params4bit(packed, requires_grad=False)
            made.weight.quant_state = state  # type: ignore[attr-defined]
            made.bias = layer.bias
            pipeline.transformer.set_submodule(name, made)
    (folder / "transformer").mkdir(parents=True)
    (folder / "transformer" / "config.json").write_text('{"_class_name": "FluxTransformer2DModel"}')
    (folder / "model_index.json").write_text('{"transformer": ["diffusers", "FluxTransformer2DModel"]}')
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file({k: v.detach().contiguous() for k, v in plain.network.state_dict().items()}, file)
    model = Flux(pipeline, "tiny-flux", defaults=plain.defaults, words=plain.own_words)
    assert serve_swaps(model.network) > 10
    model.quantise(4, find_stored(folder, "transformer", "", set(model.weights), torch.float32))
    return plain, model


def test_what_cannot_be_quantised_is_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"needs an NVIDIA GPU.*of the model is cpu; --dtype bf16 with --offload"):
        efface.load("glyphs", "cpu", quantise=4)
    with pytest.raises(ValueError, match="this is a pipeline in memory; give a diffusers folder or a hub id"):
        efface.load(tiny_flux_pipeline(), "cpu", quantise=8)
    with pytest.raises(ValueError, match="to 4 or 8 bits, not to 3"):
        check_quantise(3, "cuda", False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs bitsandbytes: pip install 'efface\[cuda\]'"):
        check_quantise(4, "cuda:0", False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with pytest.raises(ValueError, match="--compile and --quantise"):
        check_quantise(4, "cuda", True)
    check_quantise(8, "cuda", False)


def test_an_edit_of_low_rank_learnt_on_4_bits_fits_the_plain_base(tmp_path: Path) -> None:
    plain, model = in_4_bits(tmp_path)
    packed = {name: weight for name, weight in model.weights.items() if is_packed(weight)}
    before = {name: weight.data.clone() for name, weight in packed.items()}
    assert model.fingerprint() == plain.fingerprint()
    edit = build_quick("gem", model, weights="cross", guidance=3.5).fit(model, Erasure(("cat",)))
    assert {key.partition(":")[2] for key in edit.values} == {"up", "down"}
    assert all(torch.equal(model.weights[name].data, data) for name, data in before.items())
    assert all(model.weights[name] is weight for name, weight in packed.items())
    drawn = {}
    for which, each in (("plain", plain), ("4 bits", model)):
        with edit.apply(each):
            drawn[which] = each.images(["a cat"], [1], steps=2).int()
    far = (drawn["plain"] - drawn["4 bits"]).abs().float().mean()
    base = (
        (plain.images(["a cat"], [1], steps=2).int() - model.images(["a cat"], [1], steps=2).int()).abs().float().mean()
    )
    assert 0 < far < 3 * base + 1  # no further than the two bases are


def test_a_swapped_weight_is_the_bases_value_and_the_product_of_the_factors(tmp_path: Path) -> None:
    _, model = in_4_bits(tmp_path)
    name = next(name for name, weight in model.weights.items() if is_packed(weight))
    layer = model.owners[name]
    x = torch.randn(2, layer.in_features)  # type: ignore[arg-type]
    assert model.get_plain_weight(name).shape == (layer.out_features, layer.in_features)
    with model.swap_in({name: model.get_plain_weight(name)}):
        swapped = layer(x)
    assert torch.allclose(swapped, layer(x), atol=1e-5) and is_packed(layer._parameters["weight"])
    with model.swap_in({name: torch.zeros_like(model.get_plain_weight(name))}):
        assert not torch.allclose(layer(x), swapped, atol=1e-3)


@pytest.mark.parametrize("name", ["esd", "uce", "erasediff", "stereo", "eap"])
def test_methods_that_write_new_values_are_refused(name: str, tmp_path: Path) -> None:
    _, model = in_4_bits(tmp_path)
    model.architecture = "sd"  # type: ignore[misc]  (what stereo serves)
    method = build_quick(name, guidance=3.5) if "guidance" in vars(methods.get(name)()) else build_quick(name)
    with pytest.raises(ValueError, match=r"new values of weights.*(gem, spm, compose --update low-rank)"):
        method.check(Erasure(("cat",)), model)
        method.build(model, Erasure(("cat",)))


def test_edits_of_new_values_exports_and_attacks_on_weights_are_refused(tmp_path: Path) -> None:
    plain, model = in_4_bits(tmp_path)
    name = next(name for name, weight in model.weights.items() if is_packed(weight))
    dense = Edit({name: plain.weights[name] + 1}, {"base": plain.fingerprint()})
    with pytest.raises(ValueError, match="only edits of low rank can be added"), dense.apply(model):
        pass
    with pytest.raises(ValueError, match="to export or to change files, open it without --quantise"):
        dense.export(model, tmp_path / "out")
    context = SimpleNamespace(model=model)
    for attack in ("relearn", "prune"):
        with pytest.raises(ValueError, match="changes weights, and tiny-flux is held in 4 bits"):
            check_attack(attacks.build_attack(attack), context)  # type: ignore[arg-type]


def test_the_plan_counts_packed_bytes_and_scales(tmp_path: Path) -> None:
    plain, model = in_4_bits(tmp_path)
    packed = [name for name, weight in model.weights.items() if is_packed(weight)]
    numbers = sum(plain.weights[name].numel() for name in packed)
    scales = sum(tensor.nbytes for tensor in list_scales(model.network))
    assert scales == 4 * sum(len(plain.weights[name]) for name in packed)
    how = {"steps": 2, "batch": 1, "draw_steps": 2, "weights": "cross", "guidance": 3.5}
    needs = [
        estimate_from_shapes(methods.get("gem")(**how).build_trainer(each, Erasure(("cat",)))).weights
        for each in (plain, model)
    ]
    assert needs[0] - needs[1] == 4 * numbers - numbers // 2 - scales


def test_weights_that_are_read_one_by_one_have_the_digests_of_all(tmp_path: Path) -> None:
    plain, _ = in_4_bits(tmp_path)
    stored = find_stored(tmp_path, "transformer", "", set(plain.weights), torch.bfloat16)
    own = {name: plain.weights[name].detach().bfloat16() for name in stored}
    assert compute_digests(stored) == compute_digests(own) and len(own) > 20
    with pytest.raises(ValueError, match=r"in no file of .*transformer, first transformer\.gone"):
        find_stored(tmp_path, "transformer", "", {"transformer.gone"}, torch.bfloat16)
