"""Z-Image: a flow transformer of one stream, in which the prompt's tokens and the picture's are one sequence.

Tongyi Lab, arXiv 2511.22699. The network reads the time as 1 - sigma and predicts the velocity's negative, which is
undone here. The pipeline's guidance is pos + s (pos - neg), so that its s is one less than the scale here, where 1 is
the plain prediction. The prompt is the language model's penultimate states. Only the caption embedder reads text alone;
the weights that read text in attention read the picture as well. Turbo is distilled to a few steps and has no guidance;
it is recognised by its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import torch
from diffusers.pipelines.z_image.pipeline_z_image import ZImagePipeline
from torch import Tensor

from ..cond import Cond, TextMap
from ..flow_schedule import Spacing, shift_by_size, spread_sigmas
from ..trajectory import Defaults
from .language import MaskedLanguageFlow, format_chat

NORMED = "caption.normed"
"""The input of the caption embedder's linear layer: the language model's states after a norm layer."""


@final
class ZImage(MaskedLanguageFlow):
    """A `ZImagePipeline`."""

    architecture: ClassVar[str] = "z-image"

    def __init__(
        self,
        pipeline: ZImagePipeline,
        name: str,
        *,
        defaults: Defaults | None = None,
        words: Sequence[str] = (),
        compute: torch.dtype | None = None,
    ) -> None:
        self.has_uncond: bool = "turbo" not in name.lower()
        # The values are the pipeline's (guidance 5); those of turbo are the model card's.
        own = Defaults(steps=50, guidance=6.0) if self.has_uncond else Defaults(steps=9, guidance=1.0)
        MaskedLanguageFlow.__init__(self, pipeline, name, defaults or own, words, compute)
        places, room = self.latent_shape[1] // 2, min(pipeline.transformer.config.axes_lens[1:])
        if places > room:
            raise ValueError(
                f"{name} draws {places} x {places} patches, and its transformer has positions for {room} x {room} "
                f"(axes_lens); {places} or more there, or a smaller default_sample_size, would have worked"
            )

    def read_side(self) -> int:
        return getattr(self.pipeline, "default_sample_size", 128)

    def build_spacing(self, steps: int) -> Spacing:
        places = (self.latent_shape[1] // 2) ** 2
        return Spacing(spread_sigmas(steps), shift_by_size(self.pipeline.scheduler.config, places))

    def _frame(self, text: str) -> str:
        return format_chat(self.tokenizer, text, thinking=True)

    def _read(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        read, _ = self.pipeline.encode_prompt(
            texts, self.device, do_classifier_free_guidance=False, max_sequence_length=self.max_tokens
        )
        length = self.max_tokens
        states = torch.stack([torch.nn.functional.pad(row, (0, 0, 0, length - len(row))) for row in read])
        count = torch.tensor([len(row) for row in read], device=states.device)
        return states, torch.arange(length, device=states.device) < count[:, None]

    def build_call(self, prompts: Sequence[str], guidance: float) -> dict[str, Any]:
        return {**MaskedLanguageFlow.build_call(self, prompts, guidance), "guidance_scale": guidance - 1}

    def _call_network(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        assert cond.mask is not None
        captions = [row[own] for row, own in zip(cond.tokens, cond.mask, strict=True)]
        out = self.network(list(x_t.unsqueeze(2).unbind()), (1000 - t) / 1000, captions, return_dict=False)[0]
        return -torch.stack(list(out)).squeeze(2)

    def list_text_maps(self) -> Sequence[TextMap]:
        """The caption embedder, which comes before all blocks."""
        return [TextMap("embedder", f"{self.denoiser}.cap_embedder.1.weight", NORMED)]

    @torch.no_grad()
    def get_text_inputs(self, cond: Cond, part: str) -> Tensor:
        return self.network.cap_embedder[0](cond.tokens) if part == NORMED else cond.tensors[part]
