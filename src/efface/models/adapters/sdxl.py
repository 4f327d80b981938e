"""Stable Diffusion XL: two text encoders, a pooled embedding and the picture's size beside the prompt.

Podell et al., arXiv 2307.01952. The prompt is the concatenated penultimate hidden states of both encoders; the second
encoder's pooled embedding and six numbers (original size, crop, target size) are added to the time embedding. The empty
prompt is all zeros where the pipeline says `force_zeros_for_empty_prompt`, as the published weights were trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar, final

import torch
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from torch import Tensor

from ..cond import POOLED, Cond, TextMap
from ..trajectory import Defaults
from .latent import LatentDiffusion
from .sd import CLIP, ClipDiffusion
from .twin_clip import TwinClip


@final
class StableDiffusionXL(TwinClip):
    """A `StableDiffusionXLPipeline`: the base model without the refiner, and without a watermark."""

    architecture: ClassVar[str] = "sdxl"
    text_sources: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "tokens": ("text_encoder", "text_encoder_2"),
        "pooled": ("text_encoder_2",),
    }
    rescales_guidance: ClassVar[bool] = True

    def __init__(
        self,
        pipeline: StableDiffusionXLPipeline,
        name: str,
        *,
        defaults: Defaults | None = None,
        words: Sequence[str] = (),
        compute: torch.dtype | None = None,
    ) -> None:
        encoders = ("text_encoder", "text_encoder_2")
        # The guidance is the pipeline's default; that of Stable Diffusion 1.x and 2.x is higher.
        TwinClip.__init__(self, pipeline, name, encoders, defaults or Defaults(guidance=5.0), words, compute)
        self.distilled_guidance = bool(self.unet.config.get("time_cond_proj_dim"))
        self.silent = bool(pipeline.config["force_zeros_for_empty_prompt"])

    def _encode(self, texts: Sequence[str]) -> Cond:
        ids = [self._tokenize(tokenizer, texts).input_ids for tokenizer, _ in self.towers]
        return self._read_ids(ids, torch.tensor([not text for text in texts], device=self.device))

    def _read_ids(self, ids: Sequence[Tensor], empty: Tensor, texts: Sequence[str] = ()) -> Cond:
        tokens, (_, pooled) = self._read_towers(ids)
        if self.silent:
            tokens, pooled = tokens.masked_fill(empty[:, None, None], 0), pooled.masked_fill(empty[:, None], 0)
        size = (self.resolution, self.resolution)
        time_ids = torch.tensor([(*size, 0, 0, *size)], device=self.device, dtype=self.dtype).repeat(len(empty), 1)
        return self.with_scale(Cond({CLIP: tokens}, pooled=pooled, extra={"time_ids": time_ids}))

    def list_text_maps(self) -> Sequence[TextMap]:
        """Keys and values of cross-attention, and the layer that reads the pooled embedding and the picture's size."""
        name = f"{self.denoiser}.add_embedding.linear_1.weight"
        return [*ClipDiffusion.list_text_maps(self), TextMap("pooled", name, POOLED, decided=False)]

    def _call_network(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        added = {"text_embeds": cond.tensors[POOLED], "time_ids": cond.tensors["time_ids"]}
        return self.unet(
            x_t,
            t,
            encoder_hidden_states=cond.tokens,
            timestep_cond=self._embed_guidance(cond),
            added_cond_kwargs=added,
            return_dict=False,
        )[0]

    @torch.no_grad()
    def encode_pictures(self, pictures: Tensor) -> Tensor:
        with self._precise():
            plain = LatentDiffusion.encode_pictures(self, pictures)
        mean, std = self.read_moments(plain)
        return (plain - mean * self.vae.config.scaling_factor) / std

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        mean, std = self.read_moments(latents)
        with self._precise():
            return self._decode_pictures(latents * std / self.vae.config.scaling_factor + mean)

    def read_moments(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [1, c, 1, 1] of the autoencoder's latents; 0 and 1 where it has none."""
        config = self.vae.config
        if config.get("latents_mean") is None or config.get("latents_std") is None:
            return like.new_zeros(1), like.new_ones(1)
        mean, std = (like.new_tensor(m).view(1, -1, 1, 1) for m in (config.latents_mean, config.latents_std))
        return mean, std

    @contextmanager
    def _precise(self) -> Iterator[None]:
        """Casts the published autoencoder, which overflows in fp16, to fp32 and exactly back."""
        low = self.vae.dtype == torch.float16 and self.vae.config.force_upcast
        if not low:
            yield
            return
        self.vae.to(torch.float32)
        try:
            yield
        finally:
            self.vae.to(torch.float16)
