"""PixArt-alpha and PixArt-Sigma: a transformer with cross-attention to T5, which reads a prompt under a mask.

Chen et al., ICLR 2024, arXiv 2310.00426; Chen et al., ECCV 2024, arXiv 2403.04692. The network predicts noise and,
in as many further channels, a variance that no sampler here uses. All layers' keys and values read the caption
projection of T5's states; tokens past a prompt's end are masked out. Prompts are put in lower case and stripped, as the
pipelines do with `clean_caption=False`; their optional further cleaning is not done. The alpha weights for 1024 pixels
also read the picture's size and aspect ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import torch
from diffusers.pipelines.pixart_alpha.pipeline_pixart_alpha import PixArtAlphaPipeline
from diffusers.pipelines.pixart_alpha.pipeline_pixart_sigma import PixArtSigmaPipeline
from torch import Tensor

from ..cond import Cond, TextMap
from ..trajectory import Defaults
from .latent import LatentDiffusion
from .t5 import T5, tie_embeddings

CAPTION = "caption"
"""The name of T5's states after the transformer's caption projection."""
LENGTHS = {PixArtAlphaPipeline: 120, PixArtSigmaPipeline: 300}
"""Number of tokens of a prompt that each pipeline reads."""


@final
class PixArt(LatentDiffusion):
    """A `PixArtAlphaPipeline` or `PixArtSigmaPipeline`."""

    architecture: ClassVar[str] = "pixart"
    shifts: ClassVar[bool] = False
    denoiser: ClassVar[str] = "transformer"
    sequence: ClassVar[str] = T5

    def __init__(
        self,
        pipeline: PixArtAlphaPipeline | PixArtSigmaPipeline,
        name: str,
        *,
        defaults: Defaults | None = None,
        words: Sequence[str] = (),
        compute: torch.dtype | None = None,
    ) -> None:
        encoder: Any = tie_embeddings(pipeline.text_encoder)
        # Steps and guidance are the pipelines' defaults.
        suggested = defaults or Defaults(steps=20, guidance=4.5)
        LatentDiffusion.__init__(self, pipeline, name, ("text_encoder",), suggested, words, compute)
        self.text_encoder: Any = encoder
        longest = next(length for kind, length in LENGTHS.items() if isinstance(pipeline, kind))
        self.max_tokens = min(longest, pipeline.tokenizer.model_max_length)

    def _encode(self, texts: Sequence[str]) -> Cond:
        read = self._tokenize(self.tokenizer, [text.lower().strip() for text in texts])
        states = self.text_encoder(read.input_ids, attention_mask=read.attention_mask)[0]
        return Cond({T5: states.to(self.dtype)}, mask=read.attention_mask.bool())

    def _with_embedding(self, cond: Cond, embedding: Tensor) -> Cond:
        """Keeps the text's mask, so that the text has to be as long as the embedding."""
        shape = cond.tokens.shape
        if embedding.numel() != shape[1] * shape[2]:
            raise ValueError(f"an embedding for {self.name} is {tuple(shape[1:])}, got {tuple(embedding.shape)}")
        return cond.with_embedding(embedding.reshape(shape).to(self.device, self.dtype))

    def _call_network(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        added: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if self.network.use_additional_conditions:
            added["resolution"] = x_t.new_full((len(x_t), 2), self.resolution)
            added["aspect_ratio"] = x_t.new_ones(len(x_t), 1)
        out = self.network(
            x_t,
            encoder_hidden_states=cond.tokens,
            encoder_attention_mask=cond.mask,
            timestep=t,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return out[:, : x_t.shape[1]]

    def list_text_maps(self) -> Sequence[TextMap]:
        """Keys and values of cross-attention behind the caption projection, whose first layer is the embedder."""
        if self.network.caption_projection is None:
            return LatentDiffusion.list_text_maps(self)
        cross = [TextMap("cross", found.weight, CAPTION) for found in LatentDiffusion.list_text_maps(self)]
        return [TextMap("embedder", f"{self.denoiser}.caption_projection.linear_1.weight", T5), *cross]

    @torch.no_grad()
    def get_text_inputs(self, cond: Cond, part: str) -> Tensor:
        return self.network.caption_projection(cond.tokens) if part == CAPTION else cond.tensors[part]

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        raise ValueError(
            f"{self.name} reads prompts by T5, which begins with the first word: there is no start token after which "
            "token embeddings could be put; StableDiffusion (1.x and 2.x) and StableDiffusionXL have one"
        )

    def list_tokenizer_words(self) -> list[str]:
        # Pieces that begin a word, in the vocabulary's order: the highest score comes first.
        ranked = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        whole = [piece.removeprefix("▁") for piece, _ in ranked if piece.startswith("▁")]
        return [word for word in whole if len(word) > 2 and word.isascii() and word.isalpha()]
