"""FLUX.1: a flow transformer that reads T5's tokens and CLIP's pooled embedding; dev and schnell.

Black Forest Labs, 2024; the architecture is taken from the code, for there is no paper. 2 x 2 patches of the latent
picture become the channels of one position. The prompt's tokens come from T5 alone; CLIP's pooled embedding modulates
every block, together with the time.

dev has its guidance distilled into the network, which reads the scale as an input: guidance here is that input, and
costs no second prediction. `true_guidance` above 1 adds guidance by two predictions, as the pipeline's
`true_cfg_scale` does with an empty negative prompt. schnell is distilled to a few steps: it has no guidance, and its
prediction under the empty prompt is not an unconditional one.

A search over token embeddings is over CLIP's tokens, which reach the network through the pooled embedding alone. T5
takes no token embeddings: it reads the prompt without the prefix, or with its words where the prefix is words, and for
a prompt that is given as token embeddings it reads the text that comes with them, or "".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, final

import torch
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from torch import Tensor

from ..cond import POOLED, Cond, TextMap, TextSpan, find_last_before_end
from ..flow_schedule import Spacing, shift_by_size, spread_sigmas
from ..trajectory import Defaults
from .flat import flatten_parts, replace_parts
from .guidance_input import GUIDANCE
from .joint import JOINT_TEXT, find_joint_text_maps
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
        # dev's values are the pipeline's, schnell's are the model card's.
        own = Defaults(steps=28, guidance=3.5) if self.distilled_guidance else Defaults(steps=4, guidance=1.0)
        encoders = ("text_encoder", "text_encoder_2")
        ClipDiffusion.__init__(self, pipeline, name, encoders, defaults or own, words, compute)
        self.text_encoder: Any = pipeline.text_encoder
        self.text_encoders = [self.text_encoder]
        longest = 512 if self.distilled_guidance else 256
        self.tokens_of_t5 = min(longest, pipeline.tokenizer_2.model_max_length)

    def read_side(self) -> int:
        return self.pipeline.default_sample_size

    def build_spacing(self, steps: int) -> Spacing:
        places = (self.latent_shape[1] // 2) ** 2
        return Spacing(spread_sigmas(steps), shift_by_size(self.pipeline.scheduler.config, places))

    def to_checkpoint_name(self, part: str, name: str) -> str:
        return name if part == "text_encoder_2" else ClipDiffusion.to_checkpoint_name(self, part, name)

    def _encode(self, texts: Sequence[str]) -> Cond:
        ids = self._tokenize(self.tokenizer, texts).input_ids
        return self._with_t5(self.text_encoder(ids).pooler_output, texts)

    def _with_t5(self, pooled: Tensor, texts: Sequence[str]) -> Cond:
        """Conditions of n texts and their pooled embeddings [n, d]."""
        tokens = read_t5(self.t5, self._tokenize(self.pipeline.tokenizer_2, texts, self.tokens_of_t5))
        return self.with_scale(Cond({T5: tokens.to(self.dtype)}, pooled=pooled.to(self.dtype)))

    def get_embedding_table(self) -> Tensor:
        return self.text_encoder.get_input_embeddings().weight

    def count_tokens(self, text: str) -> Mapping[str, tuple[int, int]]:
        t5 = self.pipeline.tokenizer_2
        return {**ClipDiffusion.count_tokens(self, text), "text_encoder_2": (count(t5, text), self.tokens_of_t5)}

    def encode_embedded(self, embeddings: Tensor, texts: Sequence[str] = ()) -> Cond:
        """Encodes as the contract says; a prompt ends where the end token's own embedding occurs first."""
        self._check_embeddings(embeddings)
        end = self.tokenizer.eos_token_id
        ends = (embeddings == self.get_embedding_table()[end].to(embeddings)).all(dim=2)
        # The ids only mark where the sentence ends; the encoder reads the embeddings.
        with replace_embeddings(self.text_encoder, embeddings):
            pooled = self.text_encoder(torch.where(ends, end, 0)).pooler_output
        return self._with_t5(pooled, texts or [""] * len(embeddings))

    def get_embedding(self, cond: Cond) -> Tensor:
        """Flat embeddings: T5's tokens, then CLIP's pooled embedding."""
        return flatten_parts(cond)

    def _with_embedding(self, cond: Cond, embedding: Tensor) -> Cond:
        """Takes the tokens alone, so that the text's pooled embedding stays, or tokens and pooled embedding, flat."""
        return replace_parts(cond, embedding.to(self.device, self.dtype), self.name)

    def build_call(self, prompts: Sequence[str], guidance: float) -> dict[str, Any]:
        own = {**ClipDiffusion.build_call(self, prompts, guidance), "max_sequence_length": self.tokens_of_t5}
        two = {"true_cfg_scale": self.true_guidance, "negative_prompt": [""] * len(prompts)}
        return own if self.true_guidance == 1 else {**own, **two}

    def pack(self, x: Tensor) -> Tensor:
        return pack_patches(x)

    def unpack(self, out: Tensor) -> Tensor:
        return unpack_patches(out, self.latent_shape[1])

    def _call_network(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
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

    def list_text_maps(self) -> Sequence[TextMap]:
        """The context embedder, the pooled embedder, and the keys and values of the text's own stream.

        Weights of the single-stream blocks read text and picture together, so they are not listed.
        """
        return find_joint_text_maps(self.weights)

    def list_text_spans(self, part: str) -> Sequence[TextSpan]:
        if part != JOINT_TEXT:
            return ClipDiffusion.list_text_spans(self, part)
        return [TextSpan(find_last_before_end(self.pipeline.tokenizer_2))]

    @torch.no_grad()
    def get_text_inputs(self, cond: Cond, part: str) -> Tensor:
        return cond.tokens if part == JOINT_TEXT else cond.tensors[part]
