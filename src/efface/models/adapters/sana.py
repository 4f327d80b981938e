"""SANA: a flow transformer with linear self-attention and cross-attention to a small language model.

Xie et al., ICLR 2025, arXiv 2410.10629. Gemma-2 reads the prompt after an instruction, whose states are left out except
the first; the empty prompt is read without the instruction, as the pipeline reads negative prompts. All layers' keys
and values read the caption projection after a norm layer. Prompts are put in lower case and stripped; the pipeline's
optional cleaning is not done. The autoencoder makes the picture 32 times smaller and is deterministic, without a
posterior.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar, final

import torch
from diffusers.pipelines.sana.pipeline_sana import SanaPipeline
from torch import Tensor

from ..cond import Cond, TextMap
from ..trajectory import Defaults
from .language import LANGUAGE, MaskedLanguageFlow
from .latent import LatentDiffusion

CAPTION = "caption"
"""The name of the language model's states after the transformer's caption projection and norm."""


@final
class Sana(MaskedLanguageFlow):
    """A `SanaPipeline`."""

    architecture: ClassVar[str] = "sana"
    shifts: ClassVar[bool] = False
    longest: ClassVar[int] = 300

    def __init__(
        self,
        pipeline: SanaPipeline,
        name: str,
        *,
        defaults: Defaults | None = None,
        words: Sequence[str] = (),
        compute: torch.dtype | None = None,
    ) -> None:
        call = inspect.signature(SanaPipeline.__call__).parameters
        self.instruction: list[str] = call["complex_human_instruction"].default
        """The pipeline's instruction before the prompt, line by line; without lines the prompt is read alone."""
        # Steps and guidance are the pipeline's defaults.
        MaskedLanguageFlow.__init__(self, pipeline, name, defaults or Defaults(steps=20, guidance=4.5), words, compute)

    @property
    def vae_levels(self) -> int:
        return len(self.vae.config.encoder_block_out_channels)

    def _find_posterior_mode(self, pixels: Tensor) -> Tensor:
        return self.vae.encode(pixels).latent

    def _frame(self, text: str) -> str:
        return text.lower().strip()

    def _read(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        rows = []
        for text in texts:
            read, mask, *_ = self.pipeline.encode_prompt(
                self._frame(text),
                do_classifier_free_guidance=False,
                device=self.device,
                clean_caption=False,
                max_sequence_length=self.max_tokens,
                complex_human_instruction=(self.instruction or None) if text else None,
            )
            rows.append((read, mask))
        states, masks = zip(*rows, strict=True)
        return torch.cat(states), torch.cat(masks)

    def _find_last(self, heads: Sequence[str]) -> list[int]:
        lines = "\n".join(self.instruction)
        left_out = len(self.tokenizer.encode(lines)) - 2 if lines else 0  # the first token and one more stay
        places = []
        for head in heads:
            ids = self.tokenizer((lines if head else "") + self._frame(head), truncation=False)["input_ids"]
            places.append(max(0, len(ids) - 1 - (left_out if head else 0)))
        return places

    def build_call(self, prompts: Sequence[str], guidance: float) -> dict[str, Any]:
        """Switches the pipeline's binning off, by which it would draw at the nearest size of its training."""
        side = -(-self.resolution // 32) * 32
        own = {**MaskedLanguageFlow.build_call(self, prompts, guidance), "height": side, "width": side}
        lines = {"complex_human_instruction": self.instruction or None}
        return {**own, **lines, "clean_caption": False, "use_resolution_binning": False}

    def _call_network(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        out = self.network(
            x_t,
            encoder_hidden_states=cond.tokens,
            encoder_attention_mask=cond.mask,
            timestep=t * self.network.config.timestep_scale,
            return_dict=False,
        )[0]
        return out[:, : x_t.shape[1]]

    def list_text_maps(self) -> Sequence[TextMap]:
        """Keys and values of cross-attention behind the caption projection, whose first layer is the embedder."""
        cross = [TextMap("cross", found.weight, CAPTION) for found in LatentDiffusion.list_text_maps(self)]
        return [TextMap("embedder", f"{self.denoiser}.caption_projection.linear_1.weight", LANGUAGE), *cross]

    @torch.no_grad()
    def get_text_inputs(self, cond: Cond, part: str) -> Tensor:
        if part != CAPTION:
            return cond.tensors[part]
        return self.network.caption_norm(self.network.caption_projection(cond.tokens))
