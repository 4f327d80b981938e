"""FLUX.1: a flow transformer that reads T5's tokens and CLIP's pooled embedding; dev and schnell.

Black Forest Labs, 2024; the architecture is that of the code, for there is no paper. 2 x 2 patches of the latent
picture are the channels of one place. The prompt's tokens are T5's alone; CLIP's pooled embedding modulates every block
beside the time.

dev has its guidance distilled into the network, which reads the scale as a number: guidance here is that number, and
costs no second prediction. `true_guidance` above 1 guides by two predictions besides, as the pipeline's
`true_cfg_scale` with an empty negative prompt. schnell is distilled to a few steps: it has no guidance, and what it
says of the empty prompt stands for no absence of a prompt.

A search over token embeddings is over CLIP's tokens, which the network hears by the pooled embedding alone; T5 has no
part in it: it reads the prompt without what is put before it, and where token embeddings alone are given the text that
comes with them, or "".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, final

import torch
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from torch import Tensor

from ..base import Model
from ..cond import POOLED, Cond, TextMap, TextSpan, last_before_end
from ..flow_schedule import Spacing, even_sigmas, shift_by_size
from ..trajectory import Defaults
from .flat import flatten_parts, replace_parts
from .guidance_input import GUIDANCE
from .joint import JOINT_TEXT, joint_text_maps
from .latent import count
from .patches import pack_patches, unpack_patches
from .sd import ClipDiffusion, replace_embeddings
from .t5 import T5, read_t5, tie_embeddings


@final
class Flux(ClipDiffusion):
    """A `FluxPipeline`: dev where the transformer has guidance embeddings, else schnell."""

    architecture: ClassVar[str] = "flux"
    text_sources: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "tokens": ("text_encoder_2",),
        "pooled": ("text_encoder",),
    }
    denoiser: ClassVar[str] = "transformer"
    sequence: ClassVar[str] = T5
    pixels_packed: ClassVar[int] = 4

    def __init__(
        self,
        pipeline: FluxPipeline,
        name: str,
        *,
        defaults: Defaults | None = None,
        words: Sequence[str] = (),
        compute: torch.dtype | None = None,
    ) -> None:
        self.t5: Any = tie_embeddings(pipeline.text_encoder_2)
        self.distilled_guidance = bool(pipeline.transformer.config.guidance_embeds)
        self.has_uncond: bool = self.distilled_guidance
        # The pipeline's own for dev, the model card's for schnell.
        own = Defaults(steps=28, guidance=3.5) if self.distilled_guidance else Defaults(steps=4, guidance=1.0)
        encoders = ("text_encoder", "text_encoder_2")
        ClipDiffusion.__init__(self, pipeline, name, encoders, defaults or own, words, compute)
        self.text_encoder: Any = pipeline.text_encoder
        self.text_encoders = [self.text_encoder]
        longest = 512 if self.distilled_guidance else 256
        self.tokens_of_t5 = min(longest, pipeline.tokenizer_2.model_max_length)

    def read_side(self) -> int:
        return self.pipeline.default_sample_size

    def spacing(self, steps: int) -> Spacing:
        places = (self.latent_shape[1] // 2) ** 2
        return Spacing(even_sigmas(steps), shift_by_size(self.pipeline.scheduler.config, places))

    def checkpoint_name(self, part: str, name: str) -> str:
        return name if part == "text_encoder_2" else ClipDiffusion.checkpoint_name(self, part, name)

    def _encode(self, texts: Sequence[str]) -> Cond:
        ids = self._tokenize(self.tokenizer, texts).input_ids
        return self._with_t5(self.text_encoder(ids).pooler_output, texts)

    def _with_t5(self, pooled: Tensor, texts: Sequence[str]) -> Cond:
        """Conditions of n texts and their pooled embeddings [n, d]."""
        tokens = read_t5(self.t5, self._tokenize(self.pipeline.tokenizer_2, texts, self.tokens_of_t5))
        return self.with_scale(Cond({T5: tokens.to(self.dtype)}, pooled=pooled.to(self.dtype)))

    def embedding_table(self) -> Tensor:
        return self.text_encoder.get_input_embeddings().weight

    def count_tokens(self, text: str) -> Mapping[str, tuple[int, int]]:
        t5 = self.pipeline.tokenizer_2
        return {**ClipDiffusion.count_tokens(self, text), "text_encoder_2": (count(t5, text), self.tokens_of_t5)}

    def encode_embedded(self, embeddings: Tensor, texts: Sequence[str] = ()) -> Cond:
        """As every adapter does; a prompt ends where the end's own embedding stands first."""
        self._check_embeddings(embeddings)
        end = self.tokenizer.eos_token_id
        ends = (embeddings == self.embedding_table()[end].to(embeddings)).all(dim=2)
        # Ids say where the sentence ends, and no more: what is read are the embeddings.
        with replace_embeddings(self.text_encoder, embeddings):
            pooled = self.text_encoder(torch.where(ends, end, 0)).pooler_output
        return self._with_t5(pooled, texts or [""] * len(embeddings))

    def encode_with_grad(self, texts: Sequence[str], prefix: Tensor | None = None) -> Cond:
        """As every adapter does; T5 reads the texts without the prefix."""
        cond = Model.encode_with_grad(self, texts, prefix)
        return cond if prefix is None else self._with_t5(cond.tensors[POOLED], texts)

    def embedding_of(self, cond: Cond) -> Tensor:
        """Flat, T5's tokens and then CLIP's pooled embedding."""
        return flatten_parts(cond)

    def _with_embedding(self, cond: Cond, embedding: Tensor) -> Cond:
        """Either the tokens alone, and the text's pooled embedding stays; or, flat, tokens and then pooled."""
        return replace_parts(cond, embedding.to(self.device, self.dtype), self.name)

    def build_call(self, prompts: Sequence[str], guidance: float) -> dict[str, Any]:
        own = {**ClipDiffusion.build_call(self, prompts, guidance), "max_sequence_length": self.tokens_of_t5}
        two = {"true_cfg_scale": self.true_guidance, "negative_prompt": [""] * len(prompts)}
        return own if self.true_guidance == 1 else {**own, **two}

    def pack(self, x: Tensor) -> Tensor:
        return pack_patches(x)

    def unpack(self, out: Tensor) -> Tensor:
        return unpack_patches(out, self.latent_shape[1])

    def _network(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        side, like = self.latent_shape[1] // 2, {"device": x_t.device, "dtype": x_t.dtype}
        return self.network(
            hidden_states=x_t,
            timestep=t.to(x_t.dtype) / 1000,
            guidance=cond.extra[GUIDANCE][:, 0].float() if self.distilled_guidance else None,
            pooled_projections=cond.tensors[POOLED],
            encoder_hidden_states=cond.tokens,
            txt_ids=torch.zeros(cond.tokens.shape[1], 3, **like),
            img_ids=FluxPipeline._prepare_latent_image_ids(1, side, side, **like),
            return_dict=False,
        )[0]

    def text_maps(self) -> Sequence[TextMap]:
        """The context embedder, the pooled embedder, and the keys and values of the text's own stream.

        In the blocks of a single stream, weights that read text read the picture as well.
        """
        return joint_text_maps(self.weights)

    def text_spans(self, part: str) -> Sequence[TextSpan]:
        if part != JOINT_TEXT:
            return ClipDiffusion.text_spans(self, part)
        return [TextSpan(last_before_end(self.pipeline.tokenizer_2))]

    @torch.no_grad()
    def text_inputs(self, cond: Cond, part: str) -> Tensor:
        return cond.tokens if part == JOINT_TEXT else cond.tensors[part]
