"""Stable Diffusion 3 and 3.5: a transformer in which picture and prompt attend to each other, trained as a flow.

Esser et al., ICML 2024, arXiv 2403.03206. The prompt is the concatenated penultimate states of two CLIP encoders,
followed by T5's states; both CLIPs' pooled embeddings modulate every block, together with the time. T5 may be missing:
zeros then take its place, as in the pipeline. 3.5-medium attends to the picture a second time in its first blocks
(`attn2`, which reads no text).

A search over token embeddings is over the tokens of both CLIPs, which share a vocabulary. T5 takes no token embeddings:
it reads the prompt without the prefix, or with its words where the prefix is words, and for a prompt that is given as
token embeddings alone it reads "".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, final

import torch
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from torch import Tensor
from torch.nn import functional as F

from ..cond import POOLED, Cond, TextMap, TextSpan, find_last_before_end
from ..trajectory import Defaults
from .joint import JOINT_TEXT, find_joint_text_maps
from .latent import count
from .sd import CLIP, ClipDiffusion
from .t5 import T5, read_t5, tie_embeddings
from .twin_clip import TwinClip


@final
class StableDiffusion3(TwinClip):
    """A `StableDiffusion3Pipeline`, with or without its T5."""

    architecture: ClassVar[str] = "sd3"
    text_sources: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "tokens": ("text_encoder", "text_encoder_2", "text_encoder_3"),
        "pooled": ("text_encoder", "text_encoder_2"),
    }
    denoiser: ClassVar[str] = "transformer"

    def __init__(
        self,
        pipeline: StableDiffusion3Pipeline,
        name: str,
        *,
        defaults: Defaults | None = None,
        words: Sequence[str] = (),
        compute: torch.dtype | None = None,
    ) -> None:
        self.t5: Any = tie_embeddings(pipeline.text_encoder_3)
        self.reads_t5 = self.t5 is not None
        encoders = ("text_encoder", "text_encoder_2", *(("text_encoder_3",) if self.t5 is not None else ()))
        # Steps and guidance are the pipeline's defaults.
        TwinClip.__init__(self, pipeline, name, encoders, defaults or Defaults(steps=28, guidance=7.0), words, compute)
        self.tokens_of_t5 = self.defaults.blank_tokens
        if self.t5 is not None:
            self.tokens_of_t5 = min(256, pipeline.tokenizer_3.model_max_length)

    def to_checkpoint_name(self, part: str, name: str) -> str:
        return name if part == "text_encoder_3" else ClipDiffusion.to_checkpoint_name(self, part, name)

    def _encode(self, texts: Sequence[str]) -> Cond:
        ids = [self._tokenize(tokenizer, texts).input_ids for tokenizer, _ in self.towers]
        return self._with_t5(self._read_towers_whole(ids), texts)

    def _read_ids(self, ids: Sequence[Tensor], empty: Tensor, texts: Sequence[str] = ()) -> Cond:
        return self._with_t5(self._read_towers_whole(ids), texts or [""] * len(empty))

    def count_tokens(self, text: str) -> Mapping[str, tuple[int, int]]:
        clips = TwinClip.count_tokens(self, text)
        t5 = self.pipeline.tokenizer_3
        return {**clips, "text_encoder_3": (count(t5, text), self.tokens_of_t5)} if self.reads_t5 else clips

    def _read_towers_whole(self, ids: Sequence[Tensor]) -> Cond:
        tokens, pooled = self._read_towers(ids)
        return Cond({CLIP: tokens}, pooled=torch.cat(pooled, dim=-1))

    def _with_t5(self, cond: Cond, texts: Sequence[str]) -> Cond:
        """Adds T5's states of these n texts to the conditions, where there is a T5."""
        if not self.reads_t5:
            return cond
        read = self._tokenize(self.pipeline.tokenizer_3, texts, self.tokens_of_t5)
        return replace(cond, sequence={**cond.sequence, T5: read_t5(self.t5, read).to(self.dtype)})

    def build_call(self, prompts: Sequence[str], guidance: float) -> dict[str, Any]:
        """Arguments of the pipeline's call; without a T5 the pipeline reads zeros for so many tokens."""
        return {**TwinClip.build_call(self, prompts, guidance), "max_sequence_length": self.tokens_of_t5}

    def read_own_call(self, call: Any) -> None:
        """Takes over what an exported folder says of its pipeline's call (`describe_use`)."""
        blank = call.get("max_sequence_length") if isinstance(call, dict) else None
        if not self.reads_t5 and type(blank) is int and 0 <= blank <= 512:
            self.tokens_of_t5 = blank

    def describe_use(self) -> dict[str, Any]:
        blank = not self.reads_t5 and self.tokens_of_t5 != Defaults().blank_tokens
        return {**TwinClip.describe_use(self), "call": {"max_sequence_length": self.tokens_of_t5} if blank else {}}

    def _call_network(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        return self.network(
            hidden_states=x_t,
            timestep=t,
            encoder_hidden_states=self._join_text(cond),
            pooled_projections=cond.tensors[POOLED],
            return_dict=False,
        )[0]

    def _join_text(self, cond: Cond) -> Tensor:
        """The transformer's input [n, tokens, d]: CLIP's states, zero-padded to T5's width, then T5's or zeros."""
        clip, wide = cond.sequence[CLIP], self.network.config.joint_attention_dim
        clip = F.pad(clip, (0, wide - clip.shape[-1]))
        blank = cond.sequence[T5] if self.reads_t5 else clip.new_zeros(len(clip), self.tokens_of_t5, wide)
        return torch.cat([clip, blank], dim=1)

    def list_text_maps(self) -> Sequence[TextMap]:
        """The context embedder, the pooled embedder, and the keys and values of the text's own stream."""
        return find_joint_text_maps(self.weights)

    def list_text_spans(self, part: str) -> Sequence[TextSpan]:
        if part != JOINT_TEXT:
            return ClipDiffusion.list_text_spans(self, part)
        clip = TextSpan(find_last_before_end(self.tokenizer), 0, self.max_tokens)
        if not self.reads_t5:
            return [clip]
        return [clip, TextSpan(find_last_before_end(self.pipeline.tokenizer_3), self.max_tokens)]

    @torch.no_grad()
    def get_text_inputs(self, cond: Cond, part: str) -> Tensor:
        return self._join_text(cond) if part == JOINT_TEXT else cond.tensors[part]
