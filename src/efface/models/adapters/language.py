"""Flow transformers whose prompt is read by a language model: SANA, Z-Image, Qwen-Image and FLUX.2.

The pipelines' own `encode_prompt` reads it, so that templates, chosen layers and cut-off tokens are theirs. A row of
conditions has one length, whatever the prompt: tokens past its end are zeros under a mask.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..cond import Cond, TextSpan
from ..trajectory import Defaults
from .latent import LatentDiffusion, count

LANGUAGE = "language"
"""The sequence that a language model gives."""


class LanguageFlow(LatentDiffusion):
    """A pipeline of a flow transformer, an autoencoder and a language model that reads the prompt."""

    denoiser: ClassVar[str] = "transformer"
    sequence: ClassVar[str] = LANGUAGE
    longest: ClassVar[int] = 512
    """Tokens of a prompt, its template included, that are read; the tokenizer's own limit where that is less."""

    def __init__(
        self,
        pipeline: Any,
        name: str,
        defaults: Defaults,
        words: Sequence[str],
        compute: torch.dtype | None,
    ) -> None:
        LatentDiffusion.__init__(self, pipeline, name, ("text_encoder",), defaults, words, compute)
        self.max_tokens = min(self.longest, pipeline.tokenizer.model_max_length)

    @abstractmethod
    def _frame(self, text: str) -> str:
        """The text with everything that the language model reads around it."""

    def _warn_of_cuts(self, texts: Sequence[str]) -> None:
        ids = self.tokenizer([self._frame(text) for text in texts], truncation=False)["input_ids"]
        if long := [text for text, own in zip(texts, ids, strict=True) if len(own) > self.max_tokens]:
            warnings.warn(
                f"{len(long)} prompts exceed {self.max_tokens} tokens and lose their end, first {long[0]!r}",
                stacklevel=4,
            )

    def _with_embedding(self, cond: Cond, embedding: Tensor) -> Cond:
        """The text's mask stays: give the text whose length the embedding has."""
        shape = cond.tokens.shape
        if embedding.numel() != shape[1] * shape[2]:
            raise ValueError(f"an embedding for {self.name} is {tuple(shape[1:])}, got {tuple(embedding.shape)}")
        return cond.with_embedding(embedding.reshape(shape).to(self.device, self.dtype))

    def count_tokens(self, text: str) -> Mapping[str, tuple[int, int]]:
        """With its template, which counts among what is read."""
        return {"text_encoder": (count(self.tokenizer, self._frame(text)), self.max_tokens)}

    def build_call(self, prompts: Sequence[str], guidance: float) -> dict[str, Any]:
        own = LatentDiffusion.build_call(self, prompts, guidance)
        return {**own, "max_sequence_length": self.max_tokens}

    def text_spans(self, part: str) -> Sequence[TextSpan]:
        return [TextSpan(self._find_last)]

    def _find_last(self, heads: Sequence[str]) -> list[int]:
        """The place, among the rows of conditions, of the last token of each text, which more text may follow."""
        before = self._frame("\0").partition("\0")[0]
        ids = self.tokenizer([before + head for head in heads], truncation=False)["input_ids"]
        return [len(own) - 1 - self._dropped() for own in ids]

    def _dropped(self) -> int:
        """Tokens of the template, before the text, that are read and then left out."""
        return 0

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        raise ValueError(
            f"{self.name} reads prompts by a language model within a template: there is no start token after which "
            "token embeddings could be put; StableDiffusion (1.x and 2.x), StableDiffusionXL and StableDiffusion3 have"
        )

    def tokenizer_words(self) -> list[str]:
        # What a vocabulary lists first is most common, or scored highest; a word begins after a mark or a space.
        ranked = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        whole = [piece[1:] for piece, _ in ranked if piece[:1] in ("▁", "Ġ", " ")]
        return [word for word in whole if len(word) > 2 and word.isascii() and word.isalpha()]


class MaskedLanguageFlow(LanguageFlow):
    """One whose network attends to the prompt's own tokens alone, under a mask."""

    @abstractmethod
    def _read(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """States [n, length, d] of n texts and which of them are attended to [n, length]."""

    def _encode(self, texts: Sequence[str]) -> Cond:
        self._warn_of_cuts(texts)
        states, mask = self._read(list(texts))
        return Cond({LANGUAGE: states.to(self.dtype)}, mask=mask.bool())

    def _align(self, states: Tensor, mask: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Attended states [n, length, d] first, zeros after them, and the mask of these."""
        mask = mask.bool()
        rows = [row[own][:length] for row, own in zip(states, mask, strict=True)]
        padded = torch.stack([F.pad(row, (0, 0, 0, length - len(row))) for row in rows])
        count = torch.tensor([len(row) for row in rows], device=states.device)
        return padded, torch.arange(length, device=states.device) < count[:, None]


def chat(tokenizer: Any, text: str, thinking: bool) -> str:
    """The text as a user's message, by the tokenizer's own chat template, up to where an answer would begin."""
    messages = [{"role": "user", "content": text}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking)
