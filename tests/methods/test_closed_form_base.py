"""What closed forms share: the layers that they edit, and how a concept's rows are read."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from efface.concept import Erasure
from efface.methods.closed_form import Reader, find_solvable, find_text_projections, multiply_weights
from efface.methods.uce import UCE
from efface.models.cond import POOLED, TextMap, TextSpan, find_last_before_end
from tiny import tiny_model
from tiny_ddpm import tiny_ddpm
from tiny_pixart import tiny_pixart
from tiny_sd3 import tiny_sd3
from tiny_sdxl import tiny_sdxl


@pytest.mark.parametrize("make", [tiny_model, tiny_sdxl, tiny_pixart])
def test_text_projections_are_the_keys_and_values_of_cross_attention(make):
    model = make()
    found = find_text_projections(model)
    assert list(found) == [name for name in model.weights if ".attn2.to_k.w" in name or ".attn2.to_v.w" in name]
    assert all(weight is not model.weights[name] and not weight.requires_grad for name, weight in found.items())


def test_a_model_without_cross_attention_has_none():
    with pytest.raises(ValueError, match=r"this model has none; one with attn2\.to_k"):
        find_text_projections(tiny_ddpm())


def test_one_matrix_cannot_map_different_rows(monkeypatch):
    model = tiny_pixart()
    maps = [*model.list_text_maps(), TextMap("cross", "transformer.other", "t5")]
    monkeypatch.setattr(model, "list_text_maps", lambda: maps)
    with pytest.raises(ValueError, match="these read caption, t5"):
        find_text_projections(model)


@pytest.mark.parametrize("left_out", [{"rows": slice(0, 4)}, {"decided": False}])
def test_a_weight_that_reads_more_than_the_prompt_is_not_solved_for(left_out, monkeypatch):
    """Nor one that holds other rows too; nor embedders where cross-attention reads the prompt."""
    model = tiny_model()
    cross = model.list_text_maps()
    embedder = TextMap("embedder", next(iter(model.weights)), "t5")
    monkeypatch.setattr(model, "list_text_maps", lambda: [*cross, embedder])
    assert list(find_solvable(model)["clip"]) == [each.weight for each in cross] and len(find_solvable(model)) == 1
    fewer = [dataclasses.replace(cross[0], **left_out), *cross[1:], embedder]
    monkeypatch.setattr(model, "list_text_maps", lambda: fewer)
    assert list(find_solvable(model)["clip"]) == [each.weight for each in cross[1:]]
    if "rows" in left_out:
        assert list(find_text_projections(model)) == [each.weight for each in cross]
    fewer[:] = [dataclasses.replace(each, **left_out) for each in cross]
    with pytest.raises(ValueError, match="this model has none"):
        find_solvable(model)
    fewer.append(embedder)
    assert {part: list(weights) for part, weights in find_solvable(model).items()} == {"t5": [embedder.weight]}


def test_the_mask_is_that_of_the_tokens_and_a_pooled_embedding_has_none(monkeypatch):
    model = tiny_pixart()
    read = UCE().build_reader(model, "all", find_text_projections(model))
    mask = read.masks(["cat", "a red cat"])
    assert mask is not None and torch.equal(mask, model.encode(["cat", "a red cat"]).mask)
    assert len(read.read_whole(["cat"])) == mask[0].sum() < mask.shape[1]
    model = tiny_sd3()
    parts, encode = find_solvable(model), model.encode
    masked = lambda texts: dataclasses.replace(encode(texts), mask=torch.ones(len(texts), 3, dtype=torch.bool))  # noqa: E731
    monkeypatch.setattr(model, "encode", masked)
    readers = {part: UCE().build_reader(model, "all", weights) for part, weights in parts.items()}
    assert {part: reader.masks(["cat"]) is None for part, reader in readers.items()} == {
        part: part == POOLED for part in parts
    }
    assert len(parts) == 2


def test_notes_are_told_by_parts_where_there_are_several():
    erasure = Erasure(("cat",), keep=("dog",))
    settings: Any = {"preserve_vocabulary": 12, "exclude": ("rose",)}
    (edit, flow) = (UCE(**settings).fit(model, erasure) for model in (tiny_model(), tiny_sd3()))
    words = edit.meta["notes"]["preserved"]
    assert words[0] == "dog" and words.count("dog") == 1 and {"car", "tiger"} <= {*words}
    assert not {"cat", "rose"} & {*words}
    assert set(edit.meta["notes"]) == {"preserved"}
    assert flow.meta["notes"]["parts"] == {part: {"preserved": words} for part in find_solvable(tiny_sd3())}
    assert flow.meta["notes"]["preserved"] == words


def test_tokens_that_are_masked_out_are_no_rows():
    def masks(texts: list[str]) -> Tensor:
        return torch.tensor([[i < len(text.split()) + 2 for i in range(6)] for text in texts])

    read = Reader(encode, [TextSpan(find_last_before_end(Tokens()))], ("a {}",), "all", masks)  # type: ignore[arg-type]
    c, c_star = read.read_pairs(["red cat"], "dog")
    assert c.tolist() == [[9, 3], [9, 4]] and c_star.tolist() == [[5, 2], [5, 3]]
    assert [rows.shape for rows in read.read_aligned(["red cat"], "dog")] == [(4, 2), (4, 2)]
    assert read.read_kept(["cat"]).tolist() == [[5, 0], [5, 1], [5, 2], [5, 3]]
    assert read.read_whole(["x"]).tolist() == [[1, 0], [1, 1], [1, 2]]


def test_answers_are_in_fp32_at_least_and_report():
    told: list[tuple[int, int]] = []
    layers = {"a": torch.eye(2, dtype=torch.half), "b": torch.ones(3, 2)}
    values = multiply_weights(layers, 2 * torch.eye(2).double(), lambda i, n: told.append((i, n)))
    assert {name: value.dtype for name, value in values.items()} == {"a": torch.float, "b": torch.float}
    assert multiply_weights({"a": torch.eye(2).double()}, torch.eye(2).double())["a"].dtype == torch.double
    assert torch.equal(values["b"], 2 * torch.ones(3, 2))
    assert told == [(1, 2), (2, 2)]


class Tokens:
    """A tokenizer of one token a word, between a start and an end."""

    def __call__(self, texts: list[str], truncation: bool) -> dict[str, list[list[int]]]:
        assert truncation
        return {"input_ids": [[0, *map(len, text.split()), 1] for text in texts]}


def encode(texts: list[str]) -> Tensor:
    """Row i of text n is (n-th letter count, i)."""
    return torch.tensor([[[float(len(text)), float(i)] for i in range(6)] for text in texts])


def build_reader(tokens: str, *templates: str) -> Reader:
    return Reader(encode, [TextSpan(find_last_before_end(Tokens()))], templates, tokens)  # type: ignore[arg-type]


def test_the_last_subject_token_is_found_within_the_template():
    c, goal = build_reader("last-subject", "{}", "one {} here").read_pairs(["ab", "a bc"], "xyz")
    assert c.tolist() == [[2, 1], [4, 2], [len("one ab here"), 2], [len("one a bc here"), 3]]
    assert goal.tolist() == [[3, 1], [3, 1], [len("one xyz here"), 2], [len("one xyz here"), 2]]


def test_no_anchor_is_the_bare_templates_last_word_before_its_gap():
    """Or the start token, where nothing stands before it; with all tokens, as in UCE's first release, nothing."""
    c, goal = build_reader("last-subject", "one {} here", "{}").read_pairs(["ab"], "")
    assert c.tolist() == [[len("one ab here"), 2], [2, 1]]
    assert goal.tolist() == [[len("one  here"), 1], [0, 0]]
    _, goal = build_reader("all", "one {} here").read_pairs(["ab"], "")
    assert goal[0].tolist() == [0, 0]


def test_all_tokens_are_aligned_from_the_last_of_the_subject():
    c, goal = build_reader("all", "{}").read_pairs(["a bc"], "xyz")
    assert c.tolist() == [[4, i] for i in (2, 3, 4, 5)]
    assert goal.tolist() == [[3, i] for i in (1, 2, 3, 4)]


def test_kept_rows():
    assert build_reader("last-subject", "{}").read_kept(["ab", "a bc"]).tolist() == [[2, 1], [4, 2]]
    assert build_reader("all", "{}").read_kept(["ab"]).shape == (6, 2)
    assert build_reader("all", "{}").read_kept([]).shape == (0, 2)


@pytest.mark.parametrize(
    ("tokens", "templates", "message"),
    [
        ("last", ("{}",), "no choice of tokens 'last'; there are last-subject, all"),
        ("all", ("a cat",), "a template holds the concept as {}, once, and no other braces; got 'a cat'"),
        ("all", (), "a template holds the concept"),
    ],
)
def test_bad_readers(tokens, templates, message):
    with pytest.raises(ValueError, match=message):
        build_reader(tokens, *templates)


def test_a_reader_needs_a_tokenizer():
    with pytest.raises(ValueError, match="no tokenizer"):
        tiny_ddpm().list_text_spans("clip")
