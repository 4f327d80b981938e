"""PixArt: the same pictures as its diffusers pipeline draws, and the seams that it is the proof of."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

import efface
from efface import methods
from efface.concept import Erasure, Prompt
from efface.models.adapters.pixart import CAPTION, PixArt
from efface.models.cond import Cond
from efface.training.subsets import select
from tiny_pixart import LENGTH, Version, tiny_pixart, tiny_pixart_pipeline

PROMPTS, SEEDS = ["a red Cat", "a dog"], [3, 4]


@pytest.fixture
def model() -> PixArt:
    return tiny_pixart()


def draw_by_diffusers(model: PixArt, guidance: float, steps: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and uint8 pictures that the pipeline itself draws from our noise."""
    noise = torch.cat([torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in SEEDS])
    asked: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": guidance, "clean_caption": False}
    asked |= {"use_resolution_binning": False, "max_sequence_length": LENGTH, "height": 16, "width": 16}
    latents = model.pipeline(PROMPTS, latents=noise, output_type="latent", **asked).images
    pictures = model.pipeline(PROMPTS, latents=noise, output_type="np", **asked).images
    return latents, torch.from_numpy(np.asarray(pictures)).permute(0, 3, 1, 2).mul(255).round().to(torch.uint8)


@pytest.mark.parametrize("version", get_args(Version))
@pytest.mark.parametrize("guidance", [1.0, 4.5])
def test_it_draws_as_its_pipeline_does(version: Version, guidance: float) -> None:
    model = tiny_pixart(version)
    latents, pictures = draw_by_diffusers(model, guidance)
    ours = model.sample(model.encode(PROMPTS), model.encode([""]), SEEDS, steps=3, guidance=guidance)
    torch.testing.assert_close(ours.x, latents, rtol=1e-5, atol=1e-5)
    drawn = model.images(PROMPTS, SEEDS, steps=3, guidance=guidance)
    assert (drawn.int() - pictures.int()).abs().max() <= 1


def test_the_size_is_read_where_the_network_was_trained_with_it() -> None:
    model = tiny_pixart(sized=True)
    x, t, cond = torch.randn(2, 4, 8, 8), torch.tensor([10, 700]), model.encode(PROMPTS)
    size = {"resolution": torch.full((2, 2), 16.0), "aspect_ratio": torch.ones(2, 1)}
    with torch.no_grad():
        (ours,) = model.predict(x, t, cond)
        theirs = model.network(
            x, cond.tokens, t, added_cond_kwargs=size, encoder_attention_mask=cond.mask, return_dict=False
        )[0]
    assert torch.equal(ours, theirs.chunk(2, dim=1)[0])


def test_tokens_past_the_end_are_masked_out(model: PixArt) -> None:
    cond = model.encode(["a cat", ""])
    assert cond.mask is not None and cond.mask.sum(dim=1).tolist() == [3, 1]
    x = torch.randn(2, 4, 8, 8)
    other = cond.with_embedding(torch.where(cond.mask[:, :, None], cond.tokens, 7.0))
    with torch.no_grad():
        assert torch.equal(model.predict(x, 5, cond)[0], model.predict(x, 5, other)[0])
    assert torch.equal(cond.flatten(), other.flatten()) and torch.equal(cond.attended, other.attended)
    assert not cond.attended[1, 1:].any()


def test_mixing_attends_where_any_row_of_weight_does(model: PixArt) -> None:
    cond = model.encode(["a cat", "", "a red dog"])
    mixed = cond.mix(torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]))
    assert mixed.mask is not None and mixed.mask.sum(dim=1).tolist() == [3, 1]
    assert torch.allclose(mixed.tokens[0], (cond.tokens[0] + cond.tokens[1]) / 2)
    whole = Cond.cat([cond[[0]], cond[1:]]).expand(3)
    assert whole.mask is not None and torch.equal(whole.mask, cond.mask)  # type: ignore[arg-type]


def test_an_embedding_stands_for_the_texts_tokens(model: PixArt) -> None:
    cat = model.encode(["a cat"])
    own = model.encode([Prompt("a dog", cat.tokens[0])])
    assert torch.equal(own.tokens, cat.tokens) and torch.equal(own.mask, cat.mask)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"an embedding for tiny-pixart is \(10, 32\), got \(3,\)"):
        model.encode([Prompt("", torch.zeros(3))])


def test_text_maps_say_what_reads_the_prompt(model: PixArt) -> None:
    """Recorded inside a pass: each map's layer gets exactly what `get_text_inputs` gives."""
    cond, seen = model.encode(["a cat"]), {}
    hooks = [
        model.network.get_submodule(
            each.weight.removeprefix("transformer.").removesuffix(".weight")
        ).register_forward_pre_hook(lambda _, args, name=each.weight: seen.update({name: args[0]}))
        for each in model.list_text_maps()
    ]
    with torch.no_grad():
        model.predict(torch.randn(1, 4, 8, 8), 5, cond)
    for hook in hooks:
        hook.remove()
    maps = model.list_text_maps()
    assert [each.role for each in maps] == ["embedder", *["cross"] * 4]
    assert all(torch.equal(seen[each.weight], model.get_text_inputs(cond, each.part)) for each in maps)
    assert model.get_text_inputs(cond, CAPTION).shape == (1, LENGTH, 24)


def test_a_trained_text_encoder_is_swapped_in_whole(model: PixArt) -> None:
    """T5 holds its embedding in two modules; a swap must reach both."""
    before = model.encode(["a cat"]).tokens
    table = "text_encoder.shared.weight"
    with model.swap_in({table: 2 * model.weights[table]}):
        assert not torch.allclose(model.encode(["a cat"]).tokens, before)
    assert torch.equal(model.encode(["a cat"]).tokens, before)


def test_named_subsets_select_in_a_transformer(model: PixArt) -> None:
    chosen = {name: select(model.weights, name) for name in ("xattn", "xattn-strict", "noxattn", "full", "selfattn")}
    assert all(".attn2." in name for name in chosen["xattn"]) and len(chosen["xattn-strict"]) == 8
    assert {*chosen["full"]} == {name for name in model.weights if name.startswith("transformer.")}
    assert not [n for n in chosen["noxattn"] if "attn2" in n or "adaln_single" in n or "proj_out" in n]
    with pytest.raises(ValueError, match="'xlayer' selects no weight; subsets that do: xattn"):
        select(model.weights, "xlayer")


@pytest.mark.parametrize("version", get_args(Version))
def test_it_opens_from_a_folder_and_from_memory(version: Version, tmp_path: Path) -> None:
    pipeline = tiny_pixart_pipeline(version)
    ours = efface.load(pipeline)
    assert isinstance(ours, PixArt) and ours.defaults.guidance == 4.5
    ours.save_pretrained(tmp_path / "model")
    again = efface.load(tmp_path / "model", "cpu")
    assert type(again.pipeline) is type(pipeline) and again.fingerprint() == ours.fingerprint()
    drawn = [each.images(PROMPTS, SEEDS, steps=2, guidance=3.0) for each in (ours, again)]
    assert torch.equal(*drawn)


def test_words_and_what_it_has_none_of(model: PixArt) -> None:
    assert {"cat", "tiger"} <= {*model.list_tokenizer_words()} and "a" not in model.list_tokenizer_words()
    with pytest.raises(ValueError, match="no start token after which"):
        model.tokenize(["a cat"])
    with pytest.raises(ValueError, match="no text encoder that token embeddings could be given to"):
        model.get_embedding_table()


def test_a_closed_form_is_uce_on_the_caption_projection(model: PixArt) -> None:
    """W (lamb I + c c') = lamb W0 + W0 c* c' by hand, c and c* the projected states of the last token."""
    edit = methods.get("uce")(tokens="last-subject", lamb=0.5).fit(model, Erasure(("cat",), anchor="dog"))
    read = [model.network.caption_projection(model.encode([w]).tokens)[0, 0].detach().double() for w in ("cat", "dog")]
    assert len(edit.values) == 4
    for name, value in edit.values.items():
        w = model.weights[name].detach().double()
        c, c_star = (each[:, None] for each in read)
        right = 0.5 * w + w @ c_star @ c.T
        expected = torch.linalg.solve(0.5 * torch.eye(24).double() + c @ c.T, right.T).T
        assert torch.allclose(value.double(), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("safree", "T5 pools none"),
        ("stereo", "T5 has none"),
        ("advunlearn", "T5 has none"),
        ("mace", "masked out there"),
    ],
)
def test_what_cannot_serve_it_says_why_before_work(model: PixArt, name: str, why: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(model, "predict", lambda *_: pytest.fail("work began"))
    with pytest.raises(ValueError, match=f"does not work on tiny-pixart, .*, because .*{why}; it serves sd, sdxl"):
        methods.get(name)().fit(model, Erasure(("cat",)))
