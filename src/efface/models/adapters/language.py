"""Flow transformers whose prompt is read by a language model: SANA, Z-Image, Qwen-Image and FLUX.2.

The pipelines' own `encode_prompt` reads the prompt, so that templates, layers and cut-off tokens are theirs. All rows
of conditions have one length: tokens past a prompt's end are zeros and masked out.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ...plurals import write_count
from ..cond import Cond, TextSpan
from ..trajectory import Defaults
from .latent import LatentDiffusion, count

LANGUAGE = "language"
"""The name of a language model's states in conditions."""


class LanguageFlow(LatentDiffusion):
    """A pipeline of a flow transformer, an autoencoder and a language model that reads the prompt."""

    denoiser: ClassVar[str] = "transformer"
    sequence: ClassVar[str] = LANGUAGE
    longest: ClassVar[int] = 512
    """Number of tokens of a prompt, its template included, that are read; the tokenizer's limit where that is less."""

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
        """The text within the template that the language model reads."""

    def _warn_of_cuts(self, texts: Sequence[str]) -> None:
        ids = self.tokenizer([self._frame(text) for text in texts], truncation=False)["input_ids"]
        if long := [text for text, own in zip(texts, ids, strict=True) if len(own) > self.max_tokens]:
            warnings.warn(
                f"{write_count(len(long), 'prompt exceeds', 'prompts exceed')} {self.max_tokens} tokens and "
                f"{'loses its' if len(long) == 1 else 'lose their'} end, first {long[0]!r}",
                stacklevel=4,
            )

    def _with_embedding(self, cond: Cond, embedding: Tensor) -> Cond:
        """Keeps the text's mask, so that the text has to be as long as the embedding."""
        shape = cond.tokens.shape
        if embedding.numel() != shape[1] * shape[2]:
            raise ValueError(f"an embedding for {self.name} is {tuple(shape[1:])}, got {tuple(embedding.shape)}")
        return cond.with_embedding(embedding.reshape(shape).to(self.device, self.dtype))

    def count_tokens(self, text: str) -> Mapping[str, tuple[int, int]]:
        """Counts the template too, because it takes room among the tokens that are read."""
        return {"text_encoder": (count(self.tokenizer, self._frame(text)), self.max_tokens)}

    def build_call(self, prompts: Sequence[str], guidance: float) -> dict[str, Any]:
        own = LatentDiffusion.build_call(self, prompts, guidance)
        return {**own, "max_sequence_length": self.max_tokens}

    def list_text_spans(self, part: str) -> Sequence[TextSpan]:
        return [TextSpan(self._find_last)]

    def _find_last(self, heads: Sequence[str]) -> list[int]:
        """The position in the conditions of the last token of each text; more text may follow it in the prompt."""
        before = self._frame("\0").partition("\0")[0]
        ids = self.tokenizer([before + head for head in heads], truncation=False)["input_ids"]
        return [len(own) - 1 - self._dropped for own in ids]

    @property
    def _dropped(self) -> int:
        """Number of tokens of the template before the text whose states are left out of the conditions."""
        return 0

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        raise ValueError(
            f"{self.name} reads prompts by a language model within a template: there is no start token after which "
            "token embeddings could be put; StableDiffusion (1.x and 2.x), StableDiffusionXL and StableDiffusion3 have"
        )

    def list_tokenizer_words(self) -> list[str]:
        # A vocabulary lists the most common or highest-scored tokens first; a word begins with a mark or a space.
        ranked = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        whole = [piece[1:] for piece, _ in ranked if piece[:1] in ("▁", "Ġ", " ")]
        return [word for word in whole if len(word) > 2 and word.isascii() and word.isalpha()]


class MaskedLanguageFlow(LanguageFlow):
    """A `LanguageFlow` whose network attends to the prompt's own tokens alone, by a mask."""

    @abstractmethod
    def _read(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """States [n, length, d] of n texts, and the mask [n, length] of those that are attended to."""

    def _encode(self, texts: Sequence[str]) -> Cond:
        self._warn_of_cuts(texts)
        states, mask = self._read(list(texts))
        return Cond({LANGUAGE: states.to(self.dtype)}, mask=mask.bool())

    def _align(self, states: Tensor, mask: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Moves attended states [n, length, d] to the front and zeros behind them; gives states and new mask."""
        mask = mask.bool()
        rows = [row[own][:length] for row, own in zip(states, mask, strict=True)]
        padded = torch.stack([F.pad(row, (0, 0, 0, length - len(row))) for row in rows])
        count = torch.tensor([len(row) for row in rows], device=states.device)
        return padded, torch.arange(length, device=states.device) < count[:, None]


def format_chat(tokenizer: Any, text: str, thinking: bool) -> str:
    """The text as a user's message in the tokenizer's own chat template, up to where an answer would begin."""
    messages = [{"role": "user", "content": text}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking)
