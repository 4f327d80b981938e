"""Stable Diffusion 1.x and 2.x, and anything else in the same classes, glyphs among it; and what SDXL shares."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from torch import Tensor

from ...files import new_folder
from ..base import Model
from ..cond import Cond
from ..fingerprint import raw
from ..schedule import fresh, levels_of, space_of
from ..trajectory import Defaults, Sampler

CLIP = "clip"
"""The sequence that CLIP text encoders give; of two, side by side."""


def for_amx(pipeline: Any) -> None:
    """Lays a pipeline of our own out for bf16 on a CPU, where fused attention and contiguous convolutions lose time.

    Measured on the U-Net of glyphs, one core: 0.10 s rather than 0.16 s a pass of 16 rows, 0.20 s rather than 0.31 s
    with gradients; fp32 as it comes takes 0.21 s and 0.39 s.
    """
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.unet.set_attn_processor(AttnProcessor())


@contextmanager
def embedded(encoder: Any, embeddings: Tensor) -> Iterator[None]:
    """Within, a text encoder reads these token embeddings [n, length, d], whatever the tokens."""
    handle = encoder.get_input_embeddings().register_forward_hook(lambda _module, _args, out: embeddings.to(out))
    try:
        yield
    finally:
        handle.remove()


class LatentDiffusion(Model):
    """A pipeline of U-Net, KL autoencoder and CLIP text encoders; its parts are used, never changed."""

    def __init__(
        self,
        pipeline: Any,
        name: str,
        encoders: Sequence[str],
        defaults: Defaults,
        words: Sequence[str],
        compute: torch.dtype | None,
    ) -> None:
        parts = {part: getattr(pipeline, part) for part in ("unet", *encoders, "vae")}
        if missing := [part for part, module in parts.items() if module is None]:
            raise ValueError(
                f"{name} has no {', '.join(missing)}; a pipeline with {', '.join(parts)} would have worked"
            )
        for module in parts.values():
            module.eval()
        self.pipeline, self.unet, self.vae = pipeline, parts["unet"], parts.pop("vae")
        self.tokenizer: Any = pipeline.tokenizer
        self.text_encoders: list[Any] = [parts[encoder] for encoder in encoders]
        Model.__init__(self, parts)
        self.name, self.defaults, self.own_words, self.compute = name, defaults, tuple(words), compute
        self.device, self.dtype = self.unet.device, self.unet.dtype
        config, latent = self.unet.config, self.vae.config.latent_channels
        if config.in_channels != latent:
            raise ValueError(f"{name} reads {config.in_channels} channels, a plain text-to-image model reads {latent}")
        self.latent_shape = (config.in_channels, config.sample_size, config.sample_size)
        self.resolution = config.sample_size * 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.space = space_of(pipeline.scheduler, name)
        self.levels = levels_of(pipeline.scheduler)

    def checkpoint_name(self, part: str, name: str) -> str:
        # transformers 5 dropped the prefix that published CLIP checkpoints carry.
        own = part == "unet" or name.startswith(("text_model.", "text_projection."))
        return name if own else f"text_model.{name}"

    def decoder_digest(self) -> str:
        config = self.vae.config
        moments = [config.get(name) for name in ("latents_mean", "latents_std") if config.get(name) is not None]
        digest = hashlib.blake2b("".join(map(str, [config.scaling_factor, *moments])).encode(), digest_size=16)
        for name, tensor in sorted(self.vae.state_dict().items()):
            digest.update(name.encode() + raw(tensor, torch.float32))
        return digest.hexdigest()

    def scheduler(self, sampler: Sampler = "own") -> Any:
        return fresh(self.pipeline.scheduler, sampler)

    def _tokenize(self, tokenizer: Any, texts: Sequence[str]) -> Any:
        """Token ids and attention mask, each [n, length]; says which prompts lose their end."""
        limit = tokenizer.model_max_length
        tokens = tokenizer(list(texts), padding="max_length", max_length=limit, truncation=True, return_tensors="pt")
        full = tokenizer(list(texts), truncation=False)["input_ids"]
        if long := [text for text, ids in zip(texts, full, strict=True) if len(ids) > limit]:
            warnings.warn(
                f"{len(long)} prompts exceed {limit} tokens and lose their end, first {long[0]!r}", stacklevel=4
            )
        return tokens.to(self.device)

    @torch.no_grad()
    def latents(self, pictures: Tensor) -> Tensor:
        """The middle of the autoencoder's posterior, not a sample: a picture has one place."""
        autocast = torch.autocast(self.device.type, self.compute) if self.compute else nullcontext()
        pixels = pictures.to(self.device, self.vae.dtype).div(127.5).sub(1)
        with autocast:
            mode = self.vae.encode(pixels).latent_dist.mode()
        return (mode.float() * self.vae.config.scaling_factor).to(self.dtype)

    def _pictures(self, z: Tensor) -> Tensor:
        """uint8 pictures [n, 3, h, w] on the CPU from what the autoencoder's decoder reads."""
        autocast = torch.autocast(self.device.type, self.compute) if self.compute else nullcontext()
        with autocast:
            pictures = self.vae.decode(z, return_dict=False)[0]
        scaled = (pictures / 2 + 0.5).clamp(0, 1).float().cpu()
        return (scaled * 255).round().to(torch.uint8)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        return self._tokenize(self.tokenizer, texts).input_ids

    def words(self, ids: Tensor) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def embed(self, ids: Tensor) -> Tensor:
        return torch.cat([encoder.get_input_embeddings()(ids) for encoder in self.text_encoders], dim=-1)

    def _check_embeddings(self, embeddings: Tensor) -> None:
        """Raises ValueError where these are not token embeddings of whole prompts."""
        wide = sum(encoder.get_input_embeddings().embedding_dim for encoder in self.text_encoders)
        length = self.tokenizer.model_max_length
        if embeddings.dim() != 3 or embeddings.shape[1:] != (length, wide):
            fits = f"[n, {length}, {wide}]"
            raise ValueError(f"token embeddings for {self.name} are {fits}, got {tuple(embeddings.shape)}")

    def vocabulary(self, size: int) -> list[str]:
        """The words that came with the model, or the tokenizer's most common ones."""
        return list(self.own_words or self.tokenizer_words())[:size]

    def tokenizer_words(self) -> list[str]:
        # What byte-pair encoding learned first is most common.
        ranked = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        whole = [token.removesuffix("</w>") for token, _ in ranked if token.endswith("</w>")]
        return [word for word in whole if len(word) > 2 and word.isascii() and word.isalpha()]

    def save_pretrained(self, folder: str | Path) -> None:
        plain = {name: tensor.contiguous() for name, tensor in self.weights.items()}
        with new_folder(folder) as made, self.bound(plain):
            self.pipeline.save_pretrained(made)


@final
class StableDiffusion(LatentDiffusion):
    """A `StableDiffusionPipeline`; its safety checker is not called."""

    architecture: ClassVar[str] = "sd"

    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        name: str,
        *,
        defaults: Defaults | None = None,
        words: Sequence[str] = (),
        compute: torch.dtype | None = None,
    ) -> None:
        LatentDiffusion.__init__(self, pipeline, name, ("text_encoder",), defaults or Defaults(), words, compute)
        self.text_encoder = pipeline.text_encoder

    def _encode(self, texts: Sequence[str]) -> Cond:
        tokens = self._tokenize(self.tokenizer, texts)
        masked = getattr(self.text_encoder.config, "use_attention_mask", False)
        out = self.text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask if masked else None)
        return Cond({CLIP: out[0].to(self.dtype)})

    def embedding_table(self) -> Tensor:
        return self.text_encoder.get_input_embeddings().weight

    def read_embedded(self, embeddings: Tensor) -> Cond:
        self._check_embeddings(embeddings)
        anything = torch.zeros(embeddings.shape[:2], dtype=torch.long, device=self.device)
        with embedded(self.text_encoder, embeddings):
            return Cond({CLIP: self.text_encoder(anything)[0].to(self.dtype)})

    def _with_embedding(self, cond: Cond, embedding: Tensor) -> Cond:
        shape = cond.tokens.shape
        if embedding.numel() != shape[1] * shape[2]:
            raise ValueError(f"an embedding for {self.name} is {tuple(shape[1:])}, got {tuple(embedding.shape)}")
        return cond.with_embedding(embedding.reshape(shape).to(self.device, self.dtype))

    def _network(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        return self.unet(x_t, t, encoder_hidden_states=cond.tokens, return_dict=False)[0]

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        return self._pictures(latents / self.vae.config.scaling_factor)
