"""Revive: what zeros betray of a pruned model, and what hides it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attack_context import build_context, build_rows, build_shifted, drive, edit_of, is_same, take_snapshot
from efface.attacks.revive import Revive
from efface.edits.deltas import pack
from efface.edits.edit import Edit
from efface.models.adapters.sd import StableDiffusion

ROWS = build_rows("a cat")


def find_masks(model: StableDiffusion, share: float = 0.2) -> dict[str, Tensor]:
    """Which weights stay of every matrix of attention, where the largest w_ij u_i v_j go."""
    rng, out = torch.Generator().manual_seed(0), {}
    for name in (name for name in model.weights if ".attn" in name and name.endswith(".weight")):
        weight = model.weights[name].detach()
        score = weight * torch.randn(len(weight), 1, generator=rng) * torch.randn(1, weight.shape[1], generator=rng)
        kept = torch.ones(weight.numel(), dtype=torch.bool)
        kept[score.flatten().argsort(descending=True)[: round(share * weight.numel())]] = False
        out[name] = kept.view(weight.shape)
    return out


def build_pruned(model: StableDiffusion, fill: float | None = None) -> Edit:
    values, rng = {}, torch.Generator().manual_seed(1)
    for name, kept in find_masks(model).items():
        values[f"{name}:mask"] = pack(kept)
        if fill is not None:
            scale = fill * float(model.weights[name].detach().std())
            values[f"{name}:fill"] = (torch.randn(int((~kept).sum()), generator=rng) * scale).half()
    return edit_of(model, values)


def list_revived(model: StableDiffusion, edit: Edit, attack: Revive) -> list[dict[str, Tensor]]:
    """The weights in place in each round."""
    context = build_context(model, edit)
    with edit.apply(model):
        before = take_snapshot(model)
        attack.check(context)
        look = {name: weight.detach() for name, weight in model.weights.items()}
        out = drive(
            attack.propose(context, ROWS), model, lambda _: {n: model.weights[n].detach().clone() for n in look}
        )
        assert is_same(model, before)
    return out


def measure_agreement(model: StableDiffusion, weights: dict[str, Tensor]) -> float:
    """The share of the weights put back that have the base's sign."""
    found = [
        (weights[name].sign() == model.weights[name].sign())[~kept & (weights[name] != 0)]
        for name, kept in find_masks(model).items()
    ]
    return float(torch.cat(found).double().mean())


def test_the_zeros_are_filled_and_all_else_stays(eps_model: StableDiffusion) -> None:
    edit = build_pruned(eps_model)
    rounds = list_revived(eps_model, edit, Revive(signs=("mirror",), quantiles=(1.0,), shares=(0.5, 1.0)))
    assert len(rounds) == 2
    kept = find_masks(eps_model)
    for share, weights in zip((0.5, 1.0), rounds, strict=True):
        for name, weight in weights.items():
            base = eps_model.weights[name].detach()
            if name not in kept:
                assert torch.equal(weight, base)
                continue
            gone = ~kept[name]
            assert torch.equal(weight[~gone], base[~gone])
            back = gone & (weight != 0)
            largest = torch.where(gone, torch.zeros(()), base).abs().amax(dim=1, keepdim=True).expand_as(base)
            assert 0 < int(back.sum()) <= max(1, round(share * int(gone.sum())))
            assert not (back & (largest == 0)).any(), "where a neuron lost all, nothing says how large it was"
            assert torch.equal(weight.abs()[back], largest[back])


def test_the_mirror_finds_most_signs_of_a_learned_mask(eps_model: StableDiffusion) -> None:
    edit = build_pruned(eps_model)
    few, every = (
        measure_agreement(eps_model, weights)
        for weights in list_revived(eps_model, edit, Revive(signs=("mirror",), quantiles=(0.9,), shares=(0.3, 1.0)))
    )
    assert few > every > 0.6
    (completion,) = list_revived(eps_model, edit, Revive(signs=("completion",), quantiles=(0.9,), shares=(1.0,)))
    assert measure_agreement(eps_model, completion) < every


def test_the_base_is_never_looked_at(eps_model: StableDiffusion) -> None:
    edit = build_pruned(eps_model)
    context = build_context(eps_model, edit)

    def forbidden() -> None:
        raise AssertionError("revive knows no base")

    object.__setattr__(context, "base", forbidden)
    with edit.apply(eps_model):
        notes = drive(Revive().propose(context, ROWS), eps_model, lambda candidates: candidates[0].note)
        assert notes == [
            f"{share}% of the {signs}'s signs, quantile {quantile}"
            for signs in ("mirror", "completion")
            for quantile in ("0.75", "1")
            for share in (100, 60)
        ]
        assert len(drive(Revive(queries=3).propose(context, ROWS), eps_model, len)) == 3


def test_noise_of_fewer_digits_is_found_out_and_noise_among_as_few_is_not(eps_model: StableDiffusion) -> None:
    edit = build_pruned(eps_model, fill=1.0)
    plain = list_revived(eps_model, build_pruned(eps_model), Revive(shares=(1.0,), queries=1))[0]
    noisy = list_revived(eps_model, edit, Revive(shares=(1.0,), queries=1))[0]
    hits = [noisy[name][~kept].equal(plain[name][~kept]) for name, kept in find_masks(eps_model).items()]
    assert sum(hits) > 0.8 * len(hits), "as if no noise had been there, but for numbers that are short by chance"
    short = {name: weight.detach().half().float() for name, weight in eps_model.weights.items()}
    with eps_model.swap_in(short):
        context = build_context(eps_model, edit)
        filled = {name: edit.values[name] for name in edit.values}
        with edit_of(eps_model, filled).apply(eps_model), pytest.raises(ValueError, match="noise took its place"):
            Revive().check(context)


def test_a_model_that_was_not_pruned_says_so(eps_model: StableDiffusion) -> None:
    edit = build_shifted(eps_model)
    context = build_context(eps_model, edit)
    with edit.apply(eps_model), pytest.raises(ValueError, match="no weight of this model shows that it was pruned"):
        Revive().check(context)
    with pytest.raises(ValueError, match="no edit that this attack could undo"):
        Revive().check(build_context(eps_model, None))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"signs": ("luck",)}, "no signs luck; there are mirror, completion"),
        ({"shares": (0.0,)}, "above 0 and at most 1"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Revive(**settings)
