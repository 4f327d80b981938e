"""Stable Diffusion XL: two text encoders, a pooled embedding and the picture's size beside the prompt.

Podell et al., arXiv 2307.01952. The prompt is the penultimate hidden states of both encoders, side by side; the second
encoder's projected sentence and six numbers (original size, crop, target size) join the time embedding. The empty
prompt is all zeros where the pipeline says `force_zeros_for_empty_prompt`, as the published weights were trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, final

import torch
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from torch import Tensor

from .base import Defaults
from .cond import Cond
from .sd import LatentDiffusion


@final
class StableDiffusionXL(LatentDiffusion):
    """A `StableDiffusionXLPipeline`, the base without its refiner; no watermark is drawn."""

    architecture: ClassVar[str] = "sdxl"

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
        # The pipeline's own guidance; Stable Diffusion 1.x and 2.x like more.
        LatentDiffusion.__init__(self, pipeline, name, encoders, defaults or Defaults(guidance=5.0), words, compute)
        self.towers = (
            (pipeline.tokenizer, pipeline.text_encoder),
            (pipeline.tokenizer_2, pipeline.text_encoder_2),
        )
        self.silent = bool(pipeline.config["force_zeros_for_empty_prompt"])

    def _encode(self, texts: Sequence[str]) -> Cond:
        outs = [encoder(self._tokenize(t, texts).input_ids, output_hidden_states=True) for t, encoder in self.towers]
        tokens = torch.cat([out.hidden_states[-2] for out in outs], dim=-1).to(self.dtype)
        pooled = outs[-1].text_embeds.to(self.dtype)
        if self.silent:
            empty = torch.tensor([not text for text in texts], device=self.device)
            tokens, pooled = tokens.masked_fill(empty[:, None, None], 0), pooled.masked_fill(empty[:, None], 0)
        size = (self.resolution, self.resolution)
        time_ids = torch.tensor([(*size, 0, 0, *size)], device=self.device, dtype=self.dtype).repeat(len(texts), 1)
        return Cond({"tokens": tokens, "pooled": pooled, "time_ids": time_ids})

    def _with_embedding(self, cond: Cond, embedding: Tensor) -> Cond:
        """Either the tokens alone, and the text's pooled embedding stays; or, flat, tokens and then pooled."""
        tokens, pooled = cond.tensors["tokens"], cond.tensors["pooled"]
        given = embedding.flatten().to(self.device, self.dtype)
        if len(given) not in (tokens.numel(), tokens.numel() + pooled.numel()):
            raise ValueError(
                f"an embedding for {self.name} is {tuple(tokens.shape[1:])}, or {tokens.numel() + pooled.numel()} "
                f"numbers with the pooled ones last; got {tuple(embedding.shape)}"
            )
        own = {"tokens": given[: tokens.numel()].reshape(tokens.shape)}
        own |= {"pooled": given[tokens.numel() :].reshape(pooled.shape)} if len(given) > tokens.numel() else {}
        return Cond({**cond.tensors, **own})

    def _network(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        added = {"text_embeds": cond.tensors["pooled"], "time_ids": cond.tensors["time_ids"]}
        tokens = cond.tensors["tokens"]
        return self.unet(x_t, t, encoder_hidden_states=tokens, added_cond_kwargs=added, return_dict=False)[0]

    @torch.no_grad()
    def latents(self, pictures: Tensor) -> Tensor:
        with self._precise():
            plain = LatentDiffusion.latents(self, pictures)
        mean, std = self._moments(plain)
        return (plain - mean * self.vae.config.scaling_factor) / std

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        mean, std = self._moments(latents)
        with self._precise():
            return self._pictures((latents * std / self.vae.config.scaling_factor + mean).to(self.vae.dtype))

    def _moments(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and spread [1, c, 1, 1] of the autoencoder's latents, 0 and 1 where it does not say."""
        config = self.vae.config
        if config.latents_mean is None or config.latents_std is None:
            return like.new_zeros(1), like.new_ones(1)
        mean, std = (like.new_tensor(m).view(1, -1, 1, 1) for m in (config.latents_mean, config.latents_std))
        return mean, std

    @contextmanager
    def _precise(self) -> Iterator[None]:
        """Within, the published autoencoder, which overflows in fp16, is in fp32; there and back is exact."""
        low = self.vae.dtype == torch.float16 and self.vae.config.force_upcast
        self.vae.to(torch.float32 if low else self.vae.dtype)
        try:
            yield
        finally:
            self.vae.to(torch.float16 if low else self.vae.dtype)
