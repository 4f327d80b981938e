"""Against the formulas in numpy, by least squares and loops, with the text encoder called by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from efface.concept import Prompt
from efface.guidance.safree import (
    LAST,
    SAFREE,
    SENTENCE,
    SHIFT,
    filter_embeddings,
    find_last_step,
    find_span,
    find_triggers,
)
from efface.models.adapters.sd import StableDiffusion
from efface.models.adapters.sdxl import StableDiffusionXL
from tiny import tiny_model
from tiny_sdxl import tiny_sdxl

DEFAULTS = {"alpha": 0.01, "self_validation": True, "up_t": 10, "sharpness": 2.5, "midpoint": 5.333, "negative": False}


def find_nearest(vectors: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The point of the vectors' span nearest to x, by least squares."""
    return vectors.T @ np.linalg.lstsq(vectors.T, x, rcond=1e-5)[0]


Ends = Callable[[list[int]], np.ndarray]


def compute_pooled(model: StableDiffusion, ids: list[int]) -> np.ndarray:
    """The final hidden state at the end of the text."""
    with torch.no_grad():
        hidden = model.text_encoder(torch.tensor([ids])).last_hidden_state[0]
    return hidden[ids.index(model.tokenizer.eos_token_id)].double().numpy()


def compute_side_by_side(model: StableDiffusionXL, ids: list[int]) -> np.ndarray:
    """The last but one hidden states of both encoders at the end of the text."""
    end = ids.index(model.tokenizer.eos_token_id)
    found = []
    for encoder in (model.pipeline.text_encoder, model.pipeline.text_encoder_2):
        with torch.no_grad():
            states = encoder(torch.tensor([ids]), output_hidden_states=True).hidden_states
        found.append(states[len(states) - 2][0, end].double().numpy())
    return np.concatenate(found)


def compute_sentence(model: StableDiffusionXL, ids: list[int]) -> np.ndarray:
    """The second encoder's final state at the end, normed and projected."""
    with torch.no_grad():
        out = model.pipeline.text_encoder_2(torch.tensor([ids]))
        end = out.last_hidden_state[0, ids.index(model.tokenizer.eos_token_id)]
        return model.pipeline.text_encoder_2.text_projection(end).double().numpy()


def encode_without_each(ids: list[int], ends: Ends) -> np.ndarray:
    return np.stack([ends([*ids[:i], 0, *ids[i + 1 :]]) for i in range(1, len(ids) - 1)])


def compute_by_hand(
    model: StableDiffusion | StableDiffusionXL, text: str, concepts: list[str], alpha: float, ends: Ends | None = None
) -> tuple[np.ndarray, float, list[int]]:
    """Filtered embeddings of the words, z, and the places of triggers."""
    if ends is None:
        assert isinstance(model, StableDiffusion)
        ends = partial(compute_pooled, model)
    concept = np.stack([ends(model.tokenizer(phrase)["input_ids"]) for phrase in concepts])
    ids = model.tokenizer(text)["input_ids"]
    p = encode_without_each(ids, ends)
    distance = [np.linalg.norm(row - find_nearest(concept, row)) for row in p]
    found = []
    for i, d in enumerate(distance):
        others = [distance[j] for j in range(len(p)) if j != i]
        if not others or d >= (1 + alpha) * np.mean(others):
            found.append(i + 1)
    e = model.encode([text]).tokens[0, : len(ids)].double().numpy()
    new = np.stack([find_nearest(p, row) for row in e])
    new = np.stack([row - find_nearest(concept, row) for row in new])
    cosines = [np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(e, new, strict=True)]
    return np.stack([new[i] if i in found else e[i] for i in range(len(ids))]), 1 - float(np.mean(cosines)), found


def test_span_and_filter_against_least_squares():
    rng = np.random.default_rng(0)
    prompt, concept, e = rng.normal(size=(4, 9)), rng.normal(size=(2, 9)), rng.normal(size=(3, 9))
    prompt = np.vstack([prompt, prompt[0] + prompt[1]])
    basis = find_span(torch.tensor(prompt))
    assert basis.shape == (4, 9)
    assert torch.allclose(basis @ basis.T, torch.eye(4, dtype=torch.double))
    theirs = [find_nearest(prompt, row) for row in e]
    theirs = np.stack([row - find_nearest(concept, row) for row in theirs])
    assert np.allclose(filter_embeddings(torch.tensor(e), basis, find_span(torch.tensor(concept))).numpy(), theirs)


def test_triggers_against_a_loop():
    rng = np.random.default_rng(1)
    for n in (2, 3, 6):
        p, concept = rng.normal(size=(n, 5)), rng.normal(size=(2, 5))
        d = [np.linalg.norm(row - find_nearest(concept, row)) for row in p]
        for alpha in (0.0, 0.01, 0.3):
            theirs = [d[i] >= (1 + alpha) * np.mean(d[:i] + d[i + 1 :]) for i in range(n)]
            assert find_triggers(torch.tensor(p), find_span(torch.tensor(concept)), alpha).tolist() == theirs
    assert find_triggers(torch.zeros(1, 5), find_span(torch.ones(1, 5)), 0.01).tolist() == [True]


@pytest.mark.parametrize(("z", "step"), [(0.0, 0), (0.5333, 5), (1.0, 10), (0.55, 7), (0.5, 2)])
def test_last_step_is_the_codes_sigmoid(z, step):
    assert find_last_step(z, 10, 2.5, 5.333) == step == round(10 / (1 + np.exp(-2 * 2.5 * (10 * z - 5.333))))


@pytest.mark.parametrize("text", ["a cat", "red car", "a red tiger", "cat", "dog lion apple rose"])
@pytest.mark.parametrize("concepts", [["cat"], ["cat", "red tiger"]])
def test_what_is_read_against_numpy(model, text, concepts):
    embeddings, z, _ = compute_by_hand(model, text, concepts, 0.01)
    n = len(embeddings)
    plain = model.encode([text]).tokens[0]
    with model.guided_by(SAFREE(concepts=tuple(concepts), **DEFAULTS)):
        cond = model.encode(["dog", text])[[1]]
    assert torch.equal(cond.tokens[0], plain)
    got = (cond.tokens + cond.tensors[SHIFT])[0]
    assert np.allclose(got[:n].double().numpy(), embeddings, atol=1e-4)
    assert torch.equal(got[n:], plain[n:])
    assert cond.tensors[LAST].item() == find_last_step(z, 10, 2.5, 5.333)


def test_two_text_encoders_and_the_sentence_beside_them():
    model, shares = tiny_sdxl(), []
    for text in ("a cat", "red car", "a red tiger", "cat"):
        for concepts in (["cat"], ["cat", "red tiger"]):
            shares.append(check_both_encoders(model, text, concepts))
    assert any(0 < share < 1 for share in shares)


def check_both_encoders(model: StableDiffusionXL, text: str, concepts: list[str]) -> float:
    """The share of words that are triggers, after what is read was compared with numpy."""
    embeddings, z, found = compute_by_hand(model, text, concepts, 0.01, partial(compute_side_by_side, model))
    n, plain = len(embeddings), model.encode([text]).tensors
    ids, own = model.tokenizer(text)["input_ids"], plain["pooled"][0].double().numpy()
    phrases = np.stack([compute_sentence(model, model.tokenizer(phrase)["input_ids"]) for phrase in concepts])
    assert np.allclose(compute_sentence(model, ids), own, atol=1e-5)
    wanted = find_nearest(encode_without_each(ids, partial(compute_sentence, model)), own)
    wanted = wanted - find_nearest(phrases, wanted) if found else own
    with model.guided_by(SAFREE(concepts=tuple(concepts), **DEFAULTS)):
        cond = model.encode(["", text])
        begun = SAFREE(concepts=tuple(concepts), **DEFAULTS).begin(model, cond, model.encode([""]).expand(2), 3.0)
        first = begun.list_conds(0)[-1].tensors
    assert not any(cond.tensors[name][0].any() for name in (SHIFT, SENTENCE, "clip", "pooled"))
    assert torch.equal(cond.tokens[1], plain["clip"][0])
    assert np.allclose(first["clip"][1, :n].double().numpy(), embeddings, atol=1e-4)
    assert torch.equal(first["clip"][1, n:], plain["clip"][0, n:])
    assert np.allclose(first["pooled"][1].double().numpy(), wanted, atol=1e-4)
    assert torch.equal(first["time_ids"][1], plain["time_ids"][0])
    assert cond.tensors[LAST].tolist() == [-1, find_last_step(z, 10, 2.5, 5.333)]
    return len(found) / (len(ids) - 2)


def test_it_draws_with_two_text_encoders_and_leaves_no_trace():
    model, prompts = tiny_sdxl(), ["a cat", "a red tiger", ""]
    before = model.images(prompts, [1, 2, 3])
    with model.guided_by(SAFREE(concepts=("cat",), **DEFAULTS)):
        within = model.images(prompts, [1, 2, 3])
    assert not torch.equal(within[0], before[0])
    assert torch.equal(within[2], before[2])
    assert torch.equal(model.images(prompts, [1, 2, 3]), before)


def test_some_prompts_have_triggers_and_some_words_have_none():
    """The comparison above is of both kinds."""
    model = tiny_model()
    found = {text: compute_by_hand(model, text, ["cat"], 0.01)[2] for text in ("a cat", "red car", "a red tiger")}
    assert any(found.values())
    assert any(len(places) < len(model.tokenizer(text)["input_ids"]) - 2 for text, places in found.items())


def test_filtered_embeddings_serve_up_to_the_last_step_of_each_row(eps_model):
    guide = SAFREE(concepts=("cat",), **DEFAULTS, strength=0.5)
    with eps_model.guided_by(guide):
        cond, uncond = eps_model.encode(["a cat", "dog", "", "red car"]), eps_model.encode([""])
        cond.tensors[LAST].copy_(torch.tensor([0.0, 2.0, -1.0, math.inf]))
        walk = guide.begin(eps_model, cond, uncond.expand(4), 3.0)
        for i in range(5):
            tokens = walk.list_conds(i)[-1].tokens
            serves = torch.tensor([i <= 0, i <= 2, False, True])[:, None, None]
            expected = cond.tokens + serves * 0.5 * cond.tensors[SHIFT]
            assert torch.allclose(tokens, expected, atol=1e-6)
    assert not cond.tensors[SHIFT][2].any()


def test_without_self_validation_all_steps_are_filtered(eps_model):
    with eps_model.guided_by(SAFREE(concepts=("cat",), **{**DEFAULTS, "self_validation": False})):
        assert eps_model.encode(["a cat", ""]).tensors[LAST].tolist() == [math.inf, -1]


def test_an_embedding_passes_as_it_is(eps_model):
    tokens = eps_model.encode(["a cat"]).tokens[0]
    plain = eps_model.images(["a cat"], [1])
    with eps_model.guided_by(SAFREE(concepts=("cat",), **DEFAULTS)):
        assert torch.equal(eps_model.images([Prompt("a cat", tokens)], [1]), plain)


def test_other_models_are_refused(eps_model):
    class Other:
        name = "other"

    with pytest.raises(ValueError, match=r"CLIP text encoders make of words, and other \(Other\) has none"):
        SAFREE(concepts=("cat",), **DEFAULTS).check(Other())  # type: ignore[arg-type]
