"""FLUX.2: a flow transformer that reads stacked layers of a language model; dev and Klein.

Black Forest Labs, 2025; the architecture is taken from the code. The states of three layers of the language model are
concatenated, padding included. The latent picture is the autoencoder's, its 2 x 2 patches as channels, normalised by
the statistics of a batch norm. dev has its guidance distilled into the network, as FLUX.1-dev has; Klein is guided by
two predictions, unless it is the one distilled to four steps, which has no guidance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import torch
from diffusers.pipelines.flux2.pipeline_flux2 import Flux2Pipeline, compute_empirical_mu, format_input
from diffusers.pipelines.flux2.pipeline_flux2_klein import Flux2KleinPipeline
from torch import Tensor

from ..cond import Cond, TextMap
from ..flow_schedule import Spacing, spread_sigmas
from ..trajectory import Defaults
from .guidance_input import GUIDANCE, GuidanceInput
from .joint import JOINT_TEXT, find_joint_text_maps
from .language import LanguageFlow, format_chat


@final
class Flux2(GuidanceInput, LanguageFlow):
    """A `Flux2Pipeline` or a `Flux2KleinPipeline`."""

    architecture: ClassVar[str] = "flux2"

    def __init__(
        self,
        pipeline: Flux2Pipeline | Flux2KleinPipeline,
        name: str,
        *,
        defaults: Defaults | None = None,
        words: Sequence[str] = (),
        compute: torch.dtype | None = None,
    ) -> None:
        self.klein = isinstance(pipeline, Flux2KleinPipeline)
        self.distilled_guidance = not self.klein
        distilled = self.klein and bool(pipeline.config.get("is_distilled", False))
        self.has_uncond: bool = not distilled
        # The values are the pipelines'; those of the distilled Klein are the model card's.
        own = Defaults(steps=4, guidance=1.0) if distilled else Defaults(steps=50, guidance=4.0)
        self.layers: tuple[int, ...] = (9, 18, 27) if self.klein else (10, 20, 30)
        """The layers of the language model whose states are read; of a smaller model, its last layers are read."""
        LanguageFlow.__init__(self, pipeline, name, defaults or own, words, compute)
        deepest = pipeline.text_encoder.config.get_text_config().num_hidden_layers
        if max(self.layers) > deepest:
            self.layers = tuple(range(deepest - len(self.layers) + 1, deepest + 1))

    def read_channels(self) -> int:
        return self.network.config.in_channels

    @property
    def vae_channels(self) -> int:
        return 4 * self.vae.config.latent_channels

    @property
    def vae_levels(self) -> int:
        return len(self.vae.config.block_out_channels) + 1  # a patch is two latent pixels wide

    def read_side(self) -> int:
        return self.pipeline.default_sample_size // 2

    def build_spacing(self, steps: int) -> Spacing:
        return Spacing(spread_sigmas(steps), compute_empirical_mu(self.latent_shape[1] ** 2, steps))

    def _frame(self, text: str) -> str:
        if self.klein:
            return format_chat(self.tokenizer, text, thinking=False)
        messages: Any = format_input([text], system_message=self.pipeline.system_message)
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)[0]

    def _encode(self, texts: Sequence[str]) -> Cond:
        """Encodes without a mask, because the network attends to the padding."""
        self._warn_of_cuts(texts)
        states, _ = self.pipeline.encode_prompt(
            list(texts), self.device, max_sequence_length=self.max_tokens, text_encoder_out_layers=self.layers
        )
        return self.with_scale(Cond({self.sequence: states.to(self.dtype)}))

    def build_call(self, prompts: Sequence[str], guidance: float) -> dict[str, Any]:
        own = LanguageFlow.build_call(self, prompts, guidance)
        return {**own, "text_encoder_out_layers": self.layers}

    def _call_network(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        n, length, side = len(x_t), cond.tokens.shape[1], self.latent_shape[1]
        grid = x_t.new_zeros(1, 1, side, side)
        return self.network(
            hidden_states=x_t,
            timestep=t.to(x_t.dtype) / 1000,
            guidance=cond.extra[GUIDANCE][:, 0].float() if self.distilled_guidance else None,
            encoder_hidden_states=cond.tokens,
            txt_ids=Flux2Pipeline._prepare_text_ids(cond.tokens[:1]).expand(n, length, -1).to(x_t.device),
            img_ids=Flux2Pipeline._prepare_latent_ids(grid).expand(n, -1, -1).to(x_t.device),
            return_dict=False,
        )[0]

    def pack(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)

    def unpack(self, out: Tensor) -> Tensor:
        return out.transpose(1, 2).unflatten(2, (self.latent_shape[1], -1))

    def read_moments(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [1, c, 1, 1] of the patches."""
        norm = self.vae.bn
        spread = torch.sqrt(norm.running_var + self.vae.config.batch_norm_eps)
        return norm.running_mean.view(1, -1, 1, 1).to(like), spread.view(1, -1, 1, 1).to(like)

    @torch.no_grad()
    def encode_pictures(self, pictures: Tensor) -> Tensor:
        patches = Flux2Pipeline._patchify_latents(self._encode_modes(pictures))
        mean, std = self.read_moments(patches)
        return ((patches - mean) / std).to(self.state_dtype)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        mean, std = self.read_moments(latents)
        return self._decode_pictures(Flux2Pipeline._unpatchify_latents(latents * std + mean).to(self.vae.dtype))

    def list_text_maps(self) -> Sequence[TextMap]:
        """The context embedder, and the keys and values of the text's own stream in the two-stream blocks.

        Weights of the single-stream blocks read text and picture together, so they are not listed.
        """
        return find_joint_text_maps(self.weights)

    @torch.no_grad()
    def get_text_inputs(self, cond: Cond, part: str) -> Tensor:
        return cond.tokens if part == JOINT_TEXT else cond.tensors[part]
