"""Qwen-Image: a flow transformer of two streams, whose prompt a vision-language model reads.

Wu et al., arXiv 2508.02324. The prompt's tokens are the language model's last states, without those of the instruction
before it. Guidance combines two predictions and rescales the result, at every position of the picture, to the norm of
the prediction under the prompt. The autoencoder is one for videos, used with a single frame; its latents have a mean
and a standard deviation for each channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import torch
from diffusers.pipelines.qwenimage.pipeline_qwenimage import QwenImagePipeline
from torch import Tensor

from ...functional.losses import apply_guidance
from ..cond import Cond, TextMap
from ..denoiser import Scale
from ..flow_schedule import Spacing, shift_by_size, spread_sigmas
from ..trajectory import Defaults
from .joint import STREAM, find_joint_text_maps
from .language import MaskedLanguageFlow
from .patches import pack_patches, unpack_patches

NORMED = "text.normed"
"""The input of `txt_in`: the language model's states after a norm layer."""


@final
class QwenImage(MaskedLanguageFlow):
    """A `QwenImagePipeline`. Prompts are cut at 256 tokens, not at the pipeline's 1024, to save memory."""

    architecture: ClassVar[str] = "qwen-image"
    pixels_packed: ClassVar[int] = 4
    longest: ClassVar[int] = 256

    def __init__(
        self,
        pipeline: QwenImagePipeline,
        name: str,
        *,
        defaults: Defaults | None = None,
        words: Sequence[str] = (),
        compute: torch.dtype | None = None,
    ) -> None:
        if pipeline.transformer.config.guidance_embeds:
            raise ValueError(f"{name} reads its guidance as a number; a Qwen-Image without guidance_embeds would work")
        # Steps and true_cfg_scale are the pipeline's defaults.
        MaskedLanguageFlow.__init__(self, pipeline, name, defaults or Defaults(steps=50, guidance=4.0), words, compute)

    def read_side(self) -> int:
        return self.pipeline.default_sample_size

    @property
    def vae_channels(self) -> int:
        return self.vae.config.z_dim

    @property
    def vae_levels(self) -> int:
        return len(self.vae.config.temperal_downsample) + 1

    def build_spacing(self, steps: int) -> Spacing:
        places = (self.latent_shape[1] // 2) ** 2
        return Spacing(spread_sigmas(steps), shift_by_size(self.pipeline.scheduler.config, places))

    def _frame(self, text: str) -> str:
        return self.pipeline.prompt_template_encode.format(text)

    @property
    def _dropped(self) -> int:
        return self.pipeline.prompt_template_encode_start_idx

    def _read(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        states, mask = self.pipeline.encode_prompt(texts, self.device, max_sequence_length=self.max_tokens)
        whole = torch.ones(states.shape[:2], device=states.device) if mask is None else mask
        return self._align(states, whole, self.max_tokens)

    def build_call(self, prompts: Sequence[str], guidance: float) -> dict[str, Any]:
        own = MaskedLanguageFlow.build_call(self, prompts, guidance)
        del own["guidance_scale"]  # only a network that reads the guidance uses it
        return {**own, "true_cfg_scale": guidance, "negative_prompt": [""] * len(prompts)}

    def _call_network(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        assert cond.mask is not None
        used = int(cond.mask.sum(dim=1).max())  # positions that no row attends to are skipped
        side = self.latent_shape[1] // 2
        return self.network(
            hidden_states=x_t,
            timestep=t.to(x_t.dtype) / 1000,
            encoder_hidden_states=cond.tokens[:, :used],
            encoder_hidden_states_mask=cond.mask[:, :used],
            img_shapes=[[(1, side, side)]] * len(x_t),
            return_dict=False,
        )[0]

    def guide(self, positive: Tensor, negative: Tensor, scale: Scale) -> Tensor:
        """Classifier-free guidance, rescaled at every position to the norm of the prediction under the prompt."""
        own, mixed = pack_patches(positive), pack_patches(apply_guidance(negative, positive, scale))
        rescaled = mixed * (own.norm(dim=-1, keepdim=True) / mixed.norm(dim=-1, keepdim=True))
        return unpack_patches(rescaled, positive.shape[2])

    def pack(self, x: Tensor) -> Tensor:
        return pack_patches(x)

    def unpack(self, out: Tensor) -> Tensor:
        return unpack_patches(out, self.latent_shape[1])

    def read_moments(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [1, c, 1, 1] of the autoencoder's latents."""
        config = self.vae.config
        mean, std = (like.new_tensor(m).view(1, -1, 1, 1) for m in (config.latents_mean, config.latents_std))
        return mean, std

    @torch.no_grad()
    def encode_pictures(self, pictures: Tensor) -> Tensor:
        mode = self._encode_modes(pictures.unsqueeze(2)).squeeze(2)
        mean, std = self.read_moments(mode)
        return ((mode - mean) / std).to(self.state_dtype)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        mean, std = self.read_moments(latents)
        return self._decode_pictures((latents * std + mean).to(self.vae.dtype).unsqueeze(2))

    def list_text_maps(self) -> Sequence[TextMap]:
        """`txt_in`, which comes before all blocks, and the keys and values of the text's own stream."""
        stream = [each for each in find_joint_text_maps(self.weights) if each.part == STREAM]
        return [TextMap("embedder", f"{self.denoiser}.txt_in.weight", NORMED), *stream]

    @torch.no_grad()
    def get_text_inputs(self, cond: Cond, part: str) -> Tensor:
        return self.network.txt_norm(cond.tokens) if part == NORMED else cond.tensors[part]
