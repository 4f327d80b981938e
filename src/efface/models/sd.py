"""Stable Diffusion 1.x and 2.x, and anything else in the same classes, glyphs among it."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, final

import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from ..functional.schedules import Space
from .base import Defaults, Model, Sampler, fresh, raw
from .cond import Cond

SPACES: dict[str, Space] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


def for_amx(pipeline: StableDiffusionPipeline) -> None:
    """Lays a pipeline of our own out for bf16 on a CPU, where fused attention and contiguous convolutions lose time.

    Measured on the U-Net of glyphs, one core: 0.10 s rather than 0.16 s a pass of 16 rows, 0.20 s rather than 0.31 s
    with gradients; fp32 as it comes takes 0.21 s and 0.39 s.
    """
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.unet.set_attn_processor(AttnProcessor())


@final
class StableDiffusion(Model):
    """A `StableDiffusionPipeline`; its parts are used, never changed, and its safety checker is not called."""

    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        name: str,
        *,
        defaults: Defaults | None = None,
        words: Sequence[str] = (),
        compute: torch.dtype | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.unet, self.vae, self.text_encoder = pipeline.unet, pipeline.vae, pipeline.text_encoder
        for module in (self.unet, self.vae, self.text_encoder):
            module.eval()
        self.tokenizer: Any = pipeline.tokenizer
        Model.__init__(self, {"unet": self.unet, "text_encoder": self.text_encoder})
        self.name, self.defaults, self.words, self.compute = name, defaults or Defaults(), tuple(words), compute
        self.device, self.dtype = self.unet.device, self.unet.dtype
        config = self.unet.config
        self.latent_shape = (config.in_channels, config.sample_size, config.sample_size)
        self.resolution = config.sample_size * 2 ** (len(self.vae.config.block_out_channels) - 1)
        schedule = pipeline.scheduler
        predicts = schedule.config.get("prediction_type")
        if predicts not in SPACES or not hasattr(schedule, "alphas_cumprod"):
            raise ValueError(f"{name} predicts {predicts!r} by {type(schedule).__name__}; known: {', '.join(SPACES)}")
        self.space = SPACES[predicts]
        self.alphas_bar = schedule.alphas_cumprod.detach().double().cpu()

    def checkpoint_name(self, part: str, name: str) -> str:
        # transformers 5 dropped the prefix that published CLIP checkpoints carry.
        return name if part != "text_encoder" or name.startswith("text_model.") else f"text_model.{name}"

    def decoder_digest(self) -> str:
        digest = hashlib.blake2b(str(self.vae.config.scaling_factor).encode(), digest_size=16)
        for name, tensor in sorted(self.vae.state_dict().items()):
            digest.update(name.encode() + raw(tensor, torch.float32))
        return digest.hexdigest()

    def scheduler(self, sampler: Sampler = "own") -> Any:
        own = self.pipeline.scheduler
        if sampler == "own":
            return fresh(own)
        # Without this DDIM clips x0 to [-1, 1] wherever the configuration is silent, and latents wash out.
        clip = bool(own.config.get("clip_sample", False))
        return DDIMScheduler.from_config(own.config, clip_sample=clip)

    def _encode(self, texts: Sequence[str]) -> Cond:
        limit = self.tokenizer.model_max_length
        tokens = self.tokenizer(
            list(texts), padding="max_length", max_length=limit, truncation=True, return_tensors="pt"
        )
        full = self.tokenizer(list(texts), truncation=False)["input_ids"]
        if long := [text for text, ids in zip(texts, full, strict=True) if len(ids) > limit]:
            warnings.warn(
                f"{len(long)} prompts exceed {limit} tokens and lose their end, first {long[0]!r}", stacklevel=3
            )
        masked = getattr(self.text_encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask.to(self.device) if masked else None
        out = self.text_encoder(tokens.input_ids.to(self.device), attention_mask=mask)
        return Cond({"tokens": out[0].to(self.dtype)})

    def _with_embedding(self, cond: Cond, embedding: Tensor) -> Cond:
        shape = cond.tensors["tokens"].shape
        if embedding.numel() != shape[1] * shape[2]:
            raise ValueError(f"an embedding for {self.name} is {tuple(shape[1:])}, got {tuple(embedding.shape)}")
        return Cond({"tokens": embedding.reshape(shape).to(self.device, self.dtype)})

    def _network(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        return self.unet(x_t, t, encoder_hidden_states=cond.tensors["tokens"], return_dict=False)[0]

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        autocast = torch.autocast(self.device.type, self.compute) if self.compute else nullcontext()
        with autocast:
            pictures = self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False)[0]
        scaled = (pictures / 2 + 0.5).clamp(0, 1).float().cpu()
        return (scaled * 255).round().to(torch.uint8)

    def vocabulary(self, size: int) -> list[str]:
        """The words that came with the model, or the whole words its tokenizer learned first, hence most common."""
        if self.words:
            return list(self.words[:size])
        ranked = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        whole = [token.removesuffix("</w>") for token, _ in ranked if token.endswith("</w>")]
        return [word for word in whole if len(word) > 2 and word.isascii() and word.isalpha()][:size]

    def save_pretrained(self, folder: str | Path) -> None:
        folder = Path(folder)
        if folder.exists():
            raise FileExistsError(f"{folder} exists; name a folder that does not")
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        try:
            with self.bound({name: tensor.contiguous() for name, tensor in self.weights.items()}):
                self.pipeline.save_pretrained(made)
            made.chmod(0o755)
            os.rename(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
