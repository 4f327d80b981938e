"""What an Edit can hold: new values, masks with and without filling, low-rank factors, guides."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from efface.concept import Erasure
from efface.edits.deltas import apply_parts, group_parts, merge_changes, pack, unpack
from efface.edits.edit import Edit, apply
from efface.edits.provenance import describe_run
from efface.models.adapters.sd import StableDiffusion
from efface.training.subsets import select
from tiny import tiny_model

CONV, MATRIX, BIAS = "unet.conv_in.weight", "unet.time_embedding.linear_1.weight", "unet.conv_in.bias"


def edit_of(model: StableDiffusion, values: dict[str, torch.Tensor], **more: object) -> Edit:
    return Edit(values, {**describe_run(model, Erasure(("cat",)), "test", {}), **more})


def draw_noise(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(1,), (8,), (3, 3), (5, 4, 3, 3), (0,)])
def test_packed_bits_against_a_loop(shape):
    mask = draw_noise(shape) > 0.3
    bits = pack(mask)
    by_hand = [0] * (-(-mask.numel() // 8))
    for i, kept in enumerate(mask.flatten().tolist()):
        by_hand[i // 8] |= int(kept) << (7 - i % 8)
    assert bits.dtype == torch.uint8
    assert bits.tolist() == by_hand
    assert torch.equal(unpack(bits, shape), mask)


def test_bits_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"a mask of \(3, 3\) is 2 bytes, got \(3,\) of uint8"):
        unpack(torch.zeros(3, dtype=torch.uint8), (3, 3))
    with pytest.raises(ValueError, match="of float32"):
        unpack(torch.zeros(2), (3, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masks_and_fillings_against_numpy(dtype):
    base, mask = draw_noise((4, 3, 2, 2)).to(dtype), draw_noise((4, 3, 2, 2), 1) > 0
    zeroed = apply_parts("w", base, {"mask": pack(mask)})
    assert zeroed.dtype == dtype
    flat, kept = base.float().numpy().ravel(), mask.numpy().ravel()
    assert np.array_equal(zeroed.float().numpy().ravel(), np.where(kept, flat, 0))
    fill = draw_noise((int((~mask).sum()),), 2).half()
    filled = flat.copy()
    filled[np.flatnonzero(~kept)] = fill.to(dtype).float().numpy()
    assert np.array_equal(apply_parts("w", base, {"mask": pack(mask), "fill": fill}).float().numpy().ravel(), filled)
    laid_out = base.to(memory_format=torch.channels_last)
    assert torch.equal(
        apply_parts("w", laid_out, {"mask": pack(mask), "fill": fill}).float().flatten(), torch.tensor(filled)
    )


def test_low_rank_against_numpy_for_matrices_and_kernels():
    for shape in ((5, 4), (5, 4, 3, 3)):
        base, wide = draw_noise(shape), int(np.prod(shape[1:]))
        down, up = draw_noise((2, wide), 1), draw_noise((5, 2), 2)
        by_hand = base.numpy().reshape(5, wide) + up.numpy() @ down.numpy()
        new = apply_parts("w", base, {"down": down, "up": up})
        assert np.allclose(new.numpy().reshape(5, wide), by_hand, atol=1e-5)


@pytest.mark.parametrize("strength", [-1.0, 0.3, 1.0, 2.0])
def test_strength_and_sums_against_numpy(strength):
    base, mask, down, up = draw_noise((5, 4)), draw_noise((5, 4), 1) > 0, draw_noise((2, 4), 2), draw_noise((5, 2), 3)
    several = [({"mask": pack(mask)}, strength), ({"down": down, "up": up}, 0.5)]
    old = base.numpy().astype(np.float64)
    by_hand = old + strength * (old * mask.numpy() - old) + 0.5 * up.numpy().astype(np.float64) @ down.numpy()
    assert np.allclose(merge_changes("w", base, several).numpy(), by_hand, atol=1e-5)
    assert torch.equal(merge_changes("w", base, [({"mask": pack(mask)}, 1)]), base * mask)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["w:masks"], "'w:masks' is no change of a weight"),
        (["w:"], "'w:' is no change"),
        (["w:fill"], "'w:fill' make no change of a weight"),
        (["w:down"], "'w:down' make no change"),
        (["w", "w:mask"], "'w', 'w:mask' make no change"),
        (["w:mask", "w:up", "w:down"], "'w:mask', 'w:up', 'w:down' make"),
    ],
)
def test_parts_that_make_no_change(keys, message):
    with pytest.raises(ValueError, match=message):
        group_parts({key: torch.zeros(1) for key in keys})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({CONV: torch.zeros(2)}, rf"'{CONV}' is \(2,\) where \(8, 4, 3, 3\) fits"),
        ({f"{CONV}:mask": torch.zeros(5, dtype=torch.uint8)}, rf"'{CONV}:mask': a mask of .* is 36 bytes"),
        (
            {f"{CONV}:mask": torch.zeros(36, dtype=torch.uint8), f"{CONV}:fill": torch.zeros(3)},
            rf"'{CONV}:fill' is \(3,\) where \(288,\) fits",
        ),
        ({f"{CONV}:down": torch.zeros(2, 4), f"{CONV}:up": torch.zeros(8, 2)}, rf"'{CONV}:down' .* \(2, 36\) fits"),
        ({f"{CONV}:down": torch.zeros(2, 36), f"{CONV}:up": torch.zeros(8, 3)}, rf"'{CONV}:up' .* \(8, 2\) fits"),
        (
            {f"{CONV}:down": torch.zeros(36), f"{CONV}:up": torch.zeros(8, 1)},
            rf"'{CONV}:down' is \(36,\) where \(1, 36\)",
        ),
        ({f"{BIAS}:down": torch.zeros(1, 1), f"{BIAS}:up": torch.zeros(8, 1)}, rf"'{BIAS}:up'.* no low-rank change"),
        ({"unet.nonsense": torch.zeros(1)}, "changes 'unet.nonsense', which 'tiny' lacks"),
        ({f"{CONV}:maks": torch.zeros(1)}, f"'{CONV}:maks' is no change"),
    ],
)
def test_what_does_not_fit_raises_before_anything_is_swapped(eps_model, values, message, monkeypatch):
    good = {MATRIX: torch.zeros_like(eps_model.weights[MATRIX])}
    edit = edit_of(eps_model, {**good, **values})
    monkeypatch.setattr(eps_model, "swap_in", lambda *_: pytest.fail("swapped"))
    with pytest.raises(ValueError, match=message), edit.apply(eps_model):
        pass


@pytest.fixture
def mixed(eps_model: StableDiffusion) -> Edit:
    """A new value, two masks and a low-rank change."""
    base = eps_model.weights
    kept = {name: draw_noise(tuple(base[name].shape), i) > -0.5 for i, name in enumerate(select(base, "xattn-strict"))}
    values = {f"{name}:mask": pack(mask) for name, mask in kept.items()}
    filled = next(iter(kept))
    values[f"{filled}:fill"] = draw_noise((int((~kept[filled]).sum()),), 9).half()
    values |= {
        f"{CONV}:down": draw_noise((1, 36), 10),
        f"{CONV}:up": draw_noise((8, 1), 11),
        BIAS: draw_noise((8,), 12),
    }
    return edit_of(eps_model, values)


def test_an_edit_of_all_forms_applies_leaves_and_survives_the_disk(eps_model, mixed, tmp_path):
    base = eps_model.weights
    copies = {name: tensor.detach().clone() for name, tensor in base.items()}
    before = eps_model.images(["a cat"], [0])
    assert set(mixed.names) == {*select(base, "xattn-strict"), CONV, BIAS}
    loaded = Edit.load(mixed.save(tmp_path / "edit.safetensors"))
    assert set(loaded.names) == set(mixed.names)
    drawn = []
    for edit in (mixed, loaded):
        with edit.apply(eps_model):
            assert {name for name, tensor in eps_model.weights.items() if tensor is not base[name]} == set(mixed.names)
            drawn.append(eps_model.images(["a cat"], [0]))
    assert torch.equal(*drawn)
    assert not torch.equal(drawn[0], before)
    assert all(eps_model.weights[name] is base[name] and torch.equal(base[name], copies[name]) for name in base)
    with mixed.apply(eps_model, 0.0):
        assert all(eps_model.weights[name] is base[name] for name in base)


def test_edits_of_different_forms_add_up(eps_model, mixed):
    dense = edit_of(eps_model, {CONV: torch.zeros_like(eps_model.weights[CONV])})
    base = eps_model.weights[CONV].detach().clone()
    with (
        pytest.warns(UserWarning, match=f"1 weight is changed by several edits, first {CONV}"),
        apply(eps_model, [mixed, dense], [2.0, 0.25]),
    ):
        factors = (mixed.values[f"{CONV}:up"] @ mixed.values[f"{CONV}:down"]).reshape(base.shape)
        assert torch.allclose(eps_model.weights[CONV], base + 2 * factors - 0.25 * base, atol=1e-6)


def test_a_mask_on_a_half_precision_base(eps_model, mixed):
    import efface
    from tiny import tiny_pipeline

    half = efface.load(tiny_pipeline(), dtype="bf16")
    with mixed.apply(half):
        assert all(half.weights[name].dtype == torch.bfloat16 for name in mixed.names)


def test_exporting_what_is_in_no_weights_is_refused(eps_model, mixed, tmp_path):
    guide = {"name": "negative", "arguments": {"prompt": "cat"}}
    with pytest.raises(ValueError, match=r"the edit is a guide \(negative\): it acts while efface draws"):
        edit_of(eps_model, {}, guide=guide).export(eps_model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    mixed.export(eps_model, tmp_path / "out", strength=0.5)
    import efface

    exported = efface.load(str(tmp_path / "out"), device="cpu")
    with mixed.apply(eps_model, 0.5):
        assert torch.equal(exported.weights[CONV], eps_model.weights[CONV])


def test_another_base_is_refused(mixed):
    with pytest.raises(ValueError, match="made for 'tiny' with fingerprint"), mixed.apply(tiny_model(seed=1)):
        pass
