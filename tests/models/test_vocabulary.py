"""Token ids, their embeddings, and reading these back: against the ordinary reading of prompts."""

from __future__ import annotations

import pytest
import torch

from efface.concept import Prompt
from efface.models.adapters.sd import StableDiffusion
from efface.models.adapters.sdxl import StableDiffusionXL
from tiny_ddpm import tiny_ddpm
from tiny_sdxl import tiny_sdxl, tiny_sdxl_pipeline

TEXTS = ["a red cat", "", "tiger"]


def test_embeddings_of_the_tokens_read_as_the_texts_do(eps_model: StableDiffusion) -> None:
    embeddings = eps_model.get_embedding_table()[eps_model.tokenize(TEXTS)]
    assert torch.equal(eps_model.encode_embedded(embeddings).tokens, eps_model.encode(TEXTS).tokens)
    assert torch.equal(eps_model.encode(TEXTS).flatten(), eps_model.encode_with_grad(TEXTS).flatten())


def test_ids_spell_the_words(eps_model: StableDiffusion) -> None:
    ids = eps_model.tokenize(TEXTS)
    assert ids.shape == (3, 8)
    assert ids.dtype == torch.long
    assert [eps_model.detokenize(row) for row in ids] == TEXTS
    assert eps_model.detokenize(ids[0, 2:4]) == "red cat"


def test_the_table_is_the_weight_in_place(eps_model: StableDiffusion) -> None:
    name = next(name for name in eps_model.weights if name.endswith("token_embedding.weight"))
    new = 2 * eps_model.weights[name]
    with eps_model.swap_in({name: new}):
        assert eps_model.get_embedding_table() is new
        assert eps_model.owners[name].weight is new


def test_a_loss_reaches_every_embedding(eps_model: StableDiffusion) -> None:
    """The gradient against finite differences, in a direction that moves every position."""
    given = eps_model.get_embedding_table()[eps_model.tokenize(["a cat"])].detach()
    rng = torch.Generator().manual_seed(0)
    x = torch.randn((1, *eps_model.latent_shape), generator=rng)
    goal = torch.randn((1, *eps_model.latent_shape), generator=rng)
    way = torch.randn(given.shape, generator=rng)

    def loss(embeddings: torch.Tensor) -> torch.Tensor:
        said = eps_model.predict(x, 300, eps_model.encode_embedded(embeddings))[0]
        return 1e3 * (said - goal).double().square().mean()

    moving = given.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(moving), moving)
    assert (gradient.norm(dim=2) > 0).all()
    with torch.no_grad():
        slope = (loss(given + 0.1 * way) - loss(given - 0.1 * way)) / 0.2
    assert float((gradient * way).sum()) == pytest.approx(float(slope), rel=0.03)
    assert all(weight.grad is None for weight in eps_model.weights.values())


def test_a_prefix_moves_the_words_on(eps_model: StableDiffusion) -> None:
    """Embeddings of words put before others read as the whole prompt does."""
    prefix = eps_model.get_embedding_table()[eps_model.tokenize(["red"])[:, 1:2]].expand(2, -1, -1)
    read = eps_model.encode_with_grad(["cat", "dog"], prefix)
    assert torch.equal(read.flatten(), eps_model.encode_with_grad(["red cat", "red dog"]).flatten())


def test_what_was_found_is_drawn_as_a_prompts_embedding(eps_model: StableDiffusion) -> None:
    found = eps_model.encode_embedded(eps_model.get_embedding_table()[eps_model.tokenize(["a cat"])]).detach()
    drawn = eps_model.images([Prompt("", found.tokens[0])], [1])
    assert torch.equal(drawn, eps_model.images(["a cat"], [1]))


@pytest.mark.parametrize("silent", [True, False])
def test_two_encoders_read_their_tokens_side_by_side(silent: bool) -> None:
    """Whatever the second tokenizer pads with, and where the empty prompt is zeros: tokens, pooled and sizes."""
    model = tiny_sdxl(silent=silent)
    texts = [*TEXTS, "a red cat in the big house of dogs"]
    with pytest.warns(UserWarning, match="exceeds? 8 tokens"):
        read, own = model.encode_embedded(model.get_embedding_table()[model.tokenize(texts)]), model.encode(texts)
    assert read.tensors.keys() == own.tensors.keys()
    for name, tensor in own.tensors.items():
        assert torch.allclose(read.tensors[name], tensor, atol=1e-6), name
    assert model.get_embedding_table().shape[1] == 16 + 24
    assert torch.equal(model.embed(model.tokenize(TEXTS)), model.get_embedding_table()[model.tokenize(TEXTS)])
    assert [model.detokenize(row) for row in model.tokenize(TEXTS)] == TEXTS


def test_a_prefix_moves_the_words_on_in_both_encoders() -> None:
    model = tiny_sdxl()
    prefix = model.get_embedding_table()[model.tokenize(["red"])[:, 1:2]].expand(2, -1, -1)
    read, whole = model.encode_with_grad(["cat", "dog"], prefix), model.encode_with_grad(["red cat", "red dog"])
    assert torch.allclose(read.flatten(), whole.flatten(), atol=1e-6)
    drawn = model.images([Prompt("", e) for e in model.get_embedding(read).detach()], [1, 2])
    assert torch.equal(drawn, model.images(["red cat", "red dog"], [1, 2]))


def test_a_loss_reaches_both_tables_and_the_pooled_sentence() -> None:
    model = tiny_sdxl()
    given = model.get_embedding_table()[model.tokenize(["a cat"])].detach().requires_grad_()
    read = model.encode_embedded(given)
    for name in ("clip", "pooled"):
        (gradient,) = torch.autograd.grad(read.tensors[name].square().sum(), given, retain_graph=True)
        moved = gradient[0, 1:3].abs().sum(dim=0) > 0  # the words, by encoder
        assert moved[16:].any()
        assert moved[:16].any() == (name == "clip")


def test_tokenizers_of_other_words_are_refused() -> None:
    pipeline = tiny_sdxl_pipeline()
    pipeline.tokenizer_2.add_tokens("heron")
    model = StableDiffusionXL(pipeline, "two tongues")
    with pytest.raises(ValueError, match="the two tokenizers of two tongues know different tokens"):
        model.tokenize(["cat"])


def test_classes_have_no_words() -> None:
    model = tiny_ddpm()
    calls = (
        lambda: model.tokenize(["cat"]),
        lambda: model.detokenize(torch.tensor([1])),
        model.get_embedding_table,
        lambda: model.embed(torch.tensor([1])),
        lambda: model.encode_embedded(torch.zeros(1, 8, 16)),
        lambda: model.encode_with_grad(["cat"], torch.zeros(1, 1, 16)),
    )
    for call in calls:
        with pytest.raises(ValueError, match=r"token embeddings could be given to; StableDiffusion \(1\.x and 2\.x\)"):
            call()


def test_embeddings_that_do_not_fit(eps_model: StableDiffusion) -> None:
    with pytest.raises(ValueError, match=r"token embeddings for tiny are \[n, 8, 16\], got \(1, 7, 16\)"):
        eps_model.encode_embedded(torch.zeros(1, 7, 16))
    with pytest.raises(ValueError, match="a prefix of 7 tokens leaves no room in 8; at most 6"):
        eps_model.encode_with_grad(["cat"], torch.zeros(1, 7, 16))
