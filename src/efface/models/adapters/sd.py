"""Stable Diffusion 1.x and 2.x, other models of the same classes (glyphs is one), and what they share with SDXL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, final

import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from torch import Tensor

from ..cond import Cond
from ..trajectory import Defaults
from .guidance_input import GUIDANCE, GuidanceInput
from .latent import LatentDiffusion

CLIP = "clip"
"""The name of the CLIP text encoders' states in conditions; those of two encoders are concatenated."""


def lay_out_for_amx(pipeline: Any) -> None:
    """Sets a pipeline up for bf16 on a CPU, where fused attention and contiguous convolutions are slow.

    Measured on the U-Net of glyphs, one core: 0.10 s rather than 0.16 s a pass of 16 rows, 0.20 s rather than 0.31 s
    with gradients; fp32 as it comes takes 0.21 s and 0.39 s.
    """
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.unet.set_attn_processor(AttnProcessor())


@contextmanager
def replace_embeddings(encoder: Any, embeddings: Tensor) -> Iterator[None]:
    """Makes a text encoder read these token embeddings [n, length, d] inside the `with` block, whatever the tokens."""
    handle = encoder.get_input_embeddings().register_forward_hook(lambda _module, _args, out: embeddings.to(out))
    try:
        yield
    finally:
        handle.remove()


class ClipDiffusion(GuidanceInput, LatentDiffusion):
    """A pipeline of a denoiser, an autoencoder and CLIP text encoders; a distilled U-Net may read the guidance."""

    sequence: ClassVar[str] = CLIP
    searched: ClassVar[tuple[str, ...]] = ("text_encoder",)

    @property
    def unet(self) -> Any:
        return self.network

    def _embed_guidance(self, cond: Cond) -> Tensor | None:
        """The guidance as a distilled U-Net reads it, [n, d]: the pipeline's own embedding of guidance - 1.

        Meng et al., CVPR 2023, arXiv 2210.03142; Luo et al., arXiv 2310.04378 (LCM). None where it reads no guidance.
        """
        if not self.distilled_guidance:
            return None
        scale, wide = cond.extra[GUIDANCE][:, 0] - 1, self.unet.config.time_cond_proj_dim
        with scale.device:  # the pipeline's function creates its frequencies on the default device
            return self.pipeline.get_guidance_scale_embedding(scale, embedding_dim=wide).to(self.dtype)

    def to_checkpoint_name(self, part: str, name: str) -> str:
        # transformers 5 dropped the prefix that published CLIP checkpoints carry.
        own = part == self.denoiser or name.startswith(("text_model.", "text_projection."))
        return name if own else f"text_model.{name}"

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        return self._tokenize(self.tokenizer, texts).input_ids

    def detokenize(self, ids: Tensor) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def embed(self, ids: Tensor) -> Tensor:
        tables = [encoder.get_input_embeddings() for encoder in self.text_encoders]  # on the CPU where they are parked
        return torch.cat([table(ids.to(table.weight.device)) for table in tables], dim=-1).to(self.device)

    def _check_embeddings(self, embeddings: Tensor) -> None:
        """Raises ValueError where these are not token embeddings of whole prompts."""
        wide = sum(encoder.get_input_embeddings().embedding_dim for encoder in self.text_encoders)
        length = self.max_tokens
        if embeddings.dim() != 3 or embeddings.shape[1:] != (length, wide):
            fits = f"[n, {length}, {wide}]"
            raise ValueError(f"token embeddings for {self.name} are {fits}, got {tuple(embeddings.shape)}")

    def list_tokenizer_words(self) -> list[str]:
        # Byte-pair encoding learns the most common tokens first.
        ranked = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        whole = [token.removesuffix("</w>") for token, _ in ranked if token.endswith("</w>")]
        return [word for word in whole if len(word) > 2 and word.isascii() and word.isalpha()]


@final
class StableDiffusion(ClipDiffusion):
    """A `StableDiffusionPipeline`; its safety checker is not called."""

    architecture: ClassVar[str] = "sd"
    shifts: ClassVar[bool] = False
    rescales_guidance: ClassVar[bool] = True

    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        name: str,
        *,
        defaults: Defaults | None = None,
        words: Sequence[str] = (),
        compute: torch.dtype | None = None,
    ) -> None:
        ClipDiffusion.__init__(self, pipeline, name, ("text_encoder",), defaults or Defaults(), words, compute)
        self.text_encoder = pipeline.text_encoder
        self.distilled_guidance = bool(self.unet.config.get("time_cond_proj_dim"))

    def _encode(self, texts: Sequence[str]) -> Cond:
        tokens = self._tokenize(self.tokenizer, texts)
        masked = getattr(self.text_encoder.config, "use_attention_mask", False)
        out = self.text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask if masked else None)
        return self.with_scale(Cond({CLIP: out[0].to(self.dtype)}))

    def get_embedding_table(self) -> Tensor:
        return self.text_encoder.get_input_embeddings().weight.to(self.device)

    def encode_embedded(self, embeddings: Tensor, texts: Sequence[str] = ()) -> Cond:
        self._check_embeddings(embeddings)
        anything = torch.zeros(embeddings.shape[:2], dtype=torch.long, device=self.device)
        with replace_embeddings(self.text_encoder, embeddings):
            return self.with_scale(Cond({CLIP: self.text_encoder(anything)[0].to(self.dtype)}))

    def _with_embedding(self, cond: Cond, embedding: Tensor) -> Cond:
        shape = cond.tokens.shape
        if embedding.numel() != shape[1] * shape[2]:
            raise ValueError(f"an embedding for {self.name} is {tuple(shape[1:])}, got {tuple(embedding.shape)}")
        return cond.with_embedding(embedding.reshape(shape).to(self.device, self.dtype))

    def _call_network(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        told = self._embed_guidance(cond)
        return self.unet(x_t, t, encoder_hidden_states=cond.tokens, timestep_cond=told, return_dict=False)[0]
