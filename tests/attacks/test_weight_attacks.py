"""Quantise, prune, merge and relearn: what they bind, what they leave, and that fine-tuning learns."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from attack_context import (
    Files,
    build_context,
    build_rows,
    build_shifted,
    drive,
    edit_of,
    is_same,
    let_gradients_overflow,
    take_snapshot,
)
from efface.attacks.base import Attack, AttackContext
from efface.attacks.merge import Merge
from efface.attacks.prune import Prune
from efface.attacks.quantise import Quantise
from efface.attacks.relearn import Relearn
from efface.edits.edit import Edit
from efface.functional.denoising import measure_denoising_errors
from efface.models.adapters.sd import StableDiffusion
from efface.models.base import Model
from efface.training.subsets import select
from tiny_ddpm import tiny_ddpm
from tiny_flux import tiny_flux
from tiny_language import tiny_qwen_image, tiny_sana
from tiny_pixart import tiny_pixart
from tiny_sd3 import tiny_sd3
from tiny_sdxl import tiny_sdxl

ROWS = build_rows("a cat", "a red cat")
Short = partial(Relearn, templates=("a {}",), style_templates=("red {}",))
"""Prompts that the tiny tokenizer has room for."""
KEY = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"


def list_rounds(attack: Attack, context: AttackContext) -> list[tuple[str, dict[str, Tensor]]]:
    """The note of each round and the weights then in place."""
    attack.check(context)

    def look(candidates: list) -> tuple[str, dict[str, Tensor]]:
        assert [(s.prompt, s.seed, s.start) for s in candidates] == [(r.prompt, r.seed, None) for r in ROWS]
        return candidates[0].note, {name: weight.detach().clone() for name, weight in context.model.weights.items()}

    return drive(attack.propose(context, ROWS), context.model, look)


UNDOING: list[Callable[..., Attack]] = [Quantise, Prune, Merge]


@pytest.mark.parametrize("kind", [*UNDOING, partial(Short, steps=2)])
def test_the_edited_model_is_left_as_it_was_also_when_stopped_early(
    kind: Callable[..., Attack], eps_model: StableDiffusion
) -> None:
    edit = build_shifted(eps_model)
    context = build_context(eps_model, edit)
    with edit.apply(eps_model):
        before = take_snapshot(eps_model)
        list_rounds(kind(), context)
        assert is_same(eps_model, before)
        stopped = kind().propose(context, ROWS)
        next(stopped)
        assert not is_same(eps_model, before)
        stopped.close()
        assert is_same(eps_model, before)


@pytest.mark.parametrize("kind", UNDOING)
def test_without_an_edit_there_is_nothing_to_undo(kind: Callable[..., Attack], eps_model: StableDiffusion) -> None:
    with pytest.raises(ValueError, match="no edit that this attack could undo"):
        kind().check(build_context(eps_model, None))


@pytest.mark.parametrize("kind", [*UNDOING, Relearn])
def test_a_guide_changes_no_weight_to_attack(kind: Callable[..., Attack], eps_model: StableDiffusion) -> None:
    guided = Edit({}, {**edit_of(eps_model, {}).meta, "method": "negative"})
    with pytest.raises(ValueError, match=r"\(negative\) steers drawing and changes no weight"):
        kind().check(build_context(eps_model, guided))


def test_quantising_rounds_every_matrix_and_nothing_else(eps_model: StableDiffusion) -> None:
    edit = build_shifted(eps_model)
    context = build_context(eps_model, edit)
    with edit.apply(eps_model):
        now = {name: weight.detach().clone() for name, weight in eps_model.weights.items()}
        rounds = list_rounds(Quantise(), context)
    assert [note for note, _ in rounds] == ["int8", "int4"]
    for bits, (_, weights) in zip((8, 4), rounds, strict=True):
        for name, weight in weights.items():
            rounds_it = weight.dim() >= 2 and name.endswith(".weight") and ".embeddings." not in name
            assert torch.equal(weight, now[name]) != rounds_it, name
            if rounds_it:
                channels = weight.flatten(1)
                assert max(len(channel.unique()) for channel in channels) <= 2**bits - 1
                step = now[name].flatten(1).abs().amax(dim=1) / (2 ** (bits - 1) - 1)
                assert ((channels - now[name].flatten(1)).abs() <= step[:, None] * 0.501).all()
    with edit.apply(eps_model):
        assert [note for note, _ in list_rounds(Quantise(queries=1), context)] == ["int4"]


@pytest.mark.parametrize("make", [tiny_ddpm, tiny_sdxl, tiny_pixart, tiny_sd3, tiny_flux, tiny_sana, tiny_qwen_image])
def test_embedding_tables_stay_on_every_architecture(make: Callable[[], Model]) -> None:
    model = make()
    tables = {name for name, owner in model.owners.items() if isinstance(owner, torch.nn.Embedding)}
    matrices = {n for n, w in model.weights.items() if n.endswith(".weight") and w.dim() >= 2}
    chosen = set(select(model.weights, Quantise().weights))
    assert tables and not chosen & tables and matrices - tables <= chosen


def test_rounding_gives_a_base_back_that_was_rounded_itself(eps_model: StableDiffusion) -> None:
    """The erasure that quantising must undo: changes of less than half a step of a base that lies on the steps."""
    weight = eps_model.weights[KEY].detach()
    step = 1 / 64
    grid = (torch.randint(-7, 8, weight.shape, generator=torch.Generator().manual_seed(0)) * step).float()
    grid[:, 0] = 7 * step
    with eps_model.swap_in({KEY: grid}):
        nudge = step * 0.4 * torch.rand(weight.shape, generator=torch.Generator().manual_seed(1))
        moved = grid - torch.where(grid < 0, -nudge, nudge)
        moved[:, 0] = 7 * step
        edit = edit_of(eps_model, {KEY: moved})
        context = build_context(eps_model, edit)
        with edit.apply(eps_model):
            ((_, weights),) = list_rounds(Quantise(bits=(4,), weights="attn2.to_k"), context)
    assert torch.allclose(weights[KEY], grid, atol=1e-6) and not torch.allclose(moved, grid, atol=1e-3)


def test_pruning_takes_the_share_asked_for_and_undoes_an_edit_of_small_weights(eps_model: StableDiffusion) -> None:
    weight = eps_model.weights[KEY].detach()
    sparse = torch.where(weight.abs() <= weight.abs().median(), torch.zeros(()), weight)
    with eps_model.swap_in({KEY: sparse}):
        small = 0.5 * float(sparse[sparse != 0].abs().min())
        edit = edit_of(eps_model, {KEY: torch.where(sparse == 0, torch.full((), small), sparse)})
        context = build_context(eps_model, edit)
        with edit.apply(eps_model):
            rounds = list_rounds(Prune(weights="attn2.to_k"), context)
    assert [note for note, _ in rounds] == ["10% pruned", "30% pruned", "50% pruned"]
    assert [int((weights[KEY] == 0).sum()) for _, weights in rounds] == [
        round(s * weight.numel()) for s in (0.1, 0.3, 0.5)
    ]
    assert torch.equal(rounds[-1][1][KEY], sparse)


def test_merging_goes_from_the_edit_to_the_base(eps_model: StableDiffusion) -> None:
    edit = build_shifted(eps_model)
    base = eps_model.weights[KEY].detach().clone()
    context = build_context(eps_model, edit)
    with edit.apply(eps_model):
        rounds = list_rounds(Merge(shares=(0.25, 0.75)), context)
    moved = edit.values[KEY]
    for share, (note, weights) in zip((0.25, 0.75), rounds, strict=True):
        assert note == f"{round(100 * share)}% of the base"
        assert torch.allclose(weights[KEY], (1 - share) * moved + share * base, atol=1e-6)
        assert all("attn2" in name or weights[name].equal(eps_model.weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Quantise(bits=(8, 1)), "bits are some of 2 and more"),
        (lambda: Prune(sparsities=(0.0,)), "between 0 and 1"),
        (lambda: Merge(shares=(1.0,)), "between 0 and 1"),
        (lambda: Relearn(how="slow"), "lora, dense"),  # type: ignore[arg-type]
        (lambda: Relearn(steps=0), "steps must be at least 1"),
        (lambda: Relearn(templates=("a photo",)), "holds the concept"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(make: Callable[[], Attack], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


@pytest.mark.parametrize("kind", [Quantise, Prune, Relearn])
def test_a_selection_of_nothing_is_refused_before_any_work(
    kind: Callable[..., Attack], eps_model: StableDiffusion
) -> None:
    with pytest.raises(ValueError, match="selects no weight"):
        kind(weights="nowhere").check(build_context(eps_model, build_shifted(eps_model)))


# Relearning.


def test_the_stops_are_the_last_of_the_series() -> None:
    assert Relearn(steps=50).list_stops() == [1, 2, 5, 10, 20, 50]
    assert Relearn(steps=30, queries=9).list_stops() == [1, 2, 5, 10, 20, 30]
    assert Relearn(steps=200, queries=2).list_stops() == [100, 200]
    assert Relearn(steps=1).list_stops() == [1]


def error(context: AttackContext, prompt: str) -> float:
    """The mean denoising error of the context's pictures, at noise that no attack has seen."""
    model = context.model
    x0 = model.encode_pictures(context.pictures).repeat(40, 1, 1, 1)
    cond = model.encode([prompt])
    with torch.no_grad():
        errors = measure_denoising_errors(
            lambda x_t, t: model.predict(x_t, t, cond)[0],
            x0,
            model.find_noise_level,
            len(model.levels),
            model.space,
            torch.Generator().manual_seed(99),
        )
    return float(errors.mean())


@pytest.mark.parametrize("how", ["lora", "dense"])
def test_relearning_denoises_the_pictures_better_and_better(how: str, model: StableDiffusion) -> None:
    edit = build_shifted(model)
    context = build_context(model, edit)
    attack = Short(steps=20, how=how, lr=1e-2, queries=3, batch=16, weights="attn")  # type: ignore[arg-type]
    with edit.apply(model):
        before = error(context, "a cat")
        after = drive(attack.propose(context, ROWS), model, lambda candidates: error(context, "a cat"))
    assert len(after) == 3
    assert before > after[0] > after[-1]


@pytest.mark.parametrize("how", ["lora", "dense"])
def test_relearning_lowers_a_factor_with_which_gradients_overflow(
    how: str, eps_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The factor is a power of two, so that the weights are the same, bit for bit, as without one."""
    attack = Short(steps=3, how=how, queries=1, batch=4)  # type: ignore[arg-type]
    ((_, plain),) = list_rounds(attack, build_context(eps_model, None))
    let_gradients_overflow(eps_model, monkeypatch)
    ((_, scaled),) = list_rounds(attack, build_context(eps_model, None))
    assert all(torch.equal(weight, scaled[name]) for name, weight in plain.items())
    assert any(not torch.equal(weight, eps_model.weights[name]) for name, weight in plain.items())


def test_relearning_calls_the_concept_what_the_rows_call_it(
    eps_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    read = eps_model.encode_with_grad

    def noted(texts: list[str]) -> object:
        asked.extend(texts)
        return read(texts)

    monkeypatch.setattr(eps_model, "encode_with_grad", noted)
    edit = build_shifted(eps_model)
    for placeholder, asks in (("", "object"), ("thing", "object"), ("plain", "style")):
        drive(
            Short(steps=1).propose(build_context(eps_model, edit, placeholder=placeholder, asks=asks), ROWS),
            eps_model,
            len,
        )
    assert list(dict.fromkeys(asked)) == ["a cat", "a thing", "red plain"]


@pytest.mark.parametrize(("prompt", "learned"), [("cat", "a cat"), ("", "")])
def test_relearning_trains_the_class_that_the_rows_of_a_class_conditional_model_ask_for(
    prompt: str, learned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its controls that is none: what is learned for a class would never be drawn there."""
    model, asked = tiny_ddpm(), list[str]()
    read = model.encode_with_grad
    monkeypatch.setattr(model, "encode_with_grad", lambda texts: asked.extend(texts) or read(texts))
    drive(Short(steps=2, weights="full").propose(build_context(model, None), build_rows(prompt)), model, len)
    assert set(asked) == {learned}


def test_a_low_rank_relearning_moves_matrices_by_its_rank(eps_model: StableDiffusion) -> None:
    context = build_context(eps_model, None)
    before = {name: weight.detach().clone() for name, weight in eps_model.weights.items()}
    rounds = list_rounds(Short(steps=2, rank=2), context)
    moved = {name for name, weight in rounds[-1][1].items() if not weight.equal(before[name])}
    assert moved == {name for name in before if "attn2" in name and name.endswith("weight")}
    for name in moved:
        assert torch.linalg.matrix_rank(rounds[-1][1][name].double() - before[name].double(), atol=1e-6) == 2


@pytest.mark.parametrize("how", ["lora", "dense"])
def test_an_interrupted_relearning_goes_on_where_it_stood(how: str, eps_model: StableDiffusion) -> None:
    attack = Short(steps=5, how=how)  # type: ignore[arg-type]
    whole = list_rounds(attack, build_context(eps_model, None))
    files = Files(fail_at=2)
    with pytest.raises(KeyboardInterrupt):
        list_rounds(attack, build_context(eps_model, None, once=files))
    assert files.made == ["1 step", "2 steps"]
    files.fail_at = None
    again = list_rounds(attack, build_context(eps_model, None, once=files))
    assert files.made == ["1 step", "2 steps", "5 steps"]
    for (note, weights), (same_note, its) in zip(whole, again, strict=True):
        assert note == same_note and all(weight.equal(its[name]) for name, weight in weights.items())
