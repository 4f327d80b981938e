"""Stable Diffusion XL: two text encoders, a pooled embedding and the picture's size beside the prompt.

Podell et al., arXiv 2307.01952. The prompt is the penultimate hidden states of both encoders, side by side; the second
encoder's projected sentence and six numbers (original size, crop, target size) join the time embedding. The empty
prompt is all zeros where the pipeline says `force_zeros_for_empty_prompt`, as the published weights were trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import ClassVar, final

import torch
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from torch import Tensor

from ..cond import POOLED, Cond
from ..trajectory import Defaults
from .latent import LatentDiffusion
from .sd import CLIP, ClipDiffusion, replace_embeddings


@final
class StableDiffusionXL(ClipDiffusion):
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
        ClipDiffusion.__init__(self, pipeline, name, encoders, defaults or Defaults(guidance=5.0), words, compute)
        self.towers = (
            (pipeline.tokenizer, pipeline.text_encoder),
            (pipeline.tokenizer_2, pipeline.text_encoder_2),
        )
        first, second = (tokenizer.get_vocab() for tokenizer, _ in self.towers)
        self.one_vocabulary = first == second
        self.silent = bool(pipeline.config["force_zeros_for_empty_prompt"])

    def _encode(self, texts: Sequence[str]) -> Cond:
        ids = [self._tokenize(tokenizer, texts).input_ids for tokenizer, _ in self.towers]
        return self._read_ids(ids, torch.tensor([not text for text in texts], device=self.device))

    def _read_ids(self, ids: Sequence[Tensor], empty: Tensor) -> Cond:
        """Conditions of the token ids [n, length] for each text encoder; `empty` [n] are the empty prompts."""
        outs = [encoder(own, output_hidden_states=True) for own, (_, encoder) in zip(ids, self.towers, strict=True)]
        tokens = torch.cat([out.hidden_states[-2] for out in outs], dim=-1).to(self.dtype)
        pooled = outs[-1].text_embeds.to(self.dtype)
        if self.silent:
            tokens, pooled = tokens.masked_fill(empty[:, None, None], 0), pooled.masked_fill(empty[:, None], 0)
        size = (self.resolution, self.resolution)
        time_ids = torch.tensor([(*size, 0, 0, *size)], device=self.device, dtype=self.dtype).repeat(len(empty), 1)
        return Cond({CLIP: tokens}, pooled=pooled, extra={"time_ids": time_ids})

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """The first tokenizer's; both have one vocabulary, and differ in what they pad with."""
        if not self.one_vocabulary:
            raise ValueError(f"the two tokenizers of {self.name} know different tokens: no embedding serves both")
        return ClipDiffusion.tokenize(self, texts)

    def embedding_table(self) -> Tensor:
        return torch.cat([encoder.get_input_embeddings().weight for encoder in self.text_encoders], dim=1)

    def encode_embedded(self, embeddings: Tensor) -> Cond:
        """As every adapter does; a prompt ends where the end's own embedding stands first, and padding follows."""
        self._check_embeddings(embeddings)
        tables = [encoder.get_input_embeddings().weight for encoder in self.text_encoders]
        parts = embeddings.split([table.shape[1] for table in tables], dim=2)
        end = self.tokenizer.eos_token_id
        ends = (parts[0] == tables[0][end].to(parts[0])).all(dim=2)
        after = ends.cumsum(dim=1) - ends.long() > 0
        # Ids say where the sentence ends, and no more: what is read are the embeddings.
        ids = torch.where(ends, end, 0)
        with ExitStack() as reading:
            for (tokenizer, encoder), own, table in zip(self.towers, parts, tables, strict=True):
                padded = torch.where(after[:, :, None], table[tokenizer.pad_token_id].to(own), own)
                reading.enter_context(replace_embeddings(encoder, padded))
            return self._read_ids([ids, ids], ends[:, 1])

    def embedding_of(self, cond: Cond) -> Tensor:
        """Flat, tokens and then pooled."""
        return torch.cat([cond.tokens.flatten(1), cond.tensors[POOLED]], dim=1)

    def _with_embedding(self, cond: Cond, embedding: Tensor) -> Cond:
        """Either the tokens alone, and the text's pooled embedding stays; or, flat, tokens and then pooled."""
        tokens, pooled = cond.tokens, cond.tensors[POOLED]
        given = embedding.flatten().to(self.device, self.dtype)
        if len(given) not in (tokens.numel(), tokens.numel() + pooled.numel()):
            raise ValueError(
                f"an embedding for {self.name} is {tuple(tokens.shape[1:])}, or {tokens.numel() + pooled.numel()} "
                f"numbers with the pooled ones last; got {tuple(embedding.shape)}"
            )
        own = cond.with_embedding(given[: tokens.numel()].reshape(tokens.shape))
        return (
            own if len(given) == tokens.numel() else replace(own, pooled=given[tokens.numel() :].reshape(pooled.shape))
        )

    def _network(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        added = {"text_embeds": cond.tensors[POOLED], "time_ids": cond.tensors["time_ids"]}
        tokens = cond.tokens
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
