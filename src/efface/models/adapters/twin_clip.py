"""Two CLIP text encoders that both read the prompt, as in SDXL and Stable Diffusion 3."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..cond import Cond
from ..opening.text import spell_out
from ..trajectory import Defaults
from .flat import flatten_parts, replace_parts
from .latent import count
from .sd import ClipDiffusion, replace_embeddings

ROWS_READ = 4
"""The smallest batch that the encoders read."""


def fill_rows(rows: Tensor) -> Tensor:
    """Repeats the last of the rows [n, ...] where they are fewer than `ROWS_READ`."""
    return torch.cat([rows, rows[-1:].expand(max(0, ROWS_READ - len(rows)), *rows.shape[1:])])


class TwinClip(ClipDiffusion):
    """A pipeline with two CLIP text encoders, whose penultimate states are concatenated, and with pooled embeddings.

    A token's embedding is the concatenation of both encoders' embeddings; a prompt's embedding is flat: the states of
    all its tokens, then the pooled embedding.
    """

    searched: ClassVar[tuple[str, ...]] = ("text_encoder", "text_encoder_2")

    def __init__(
        self,
        pipeline: Any,
        name: str,
        encoders: Sequence[str],
        defaults: Defaults,
        words: Sequence[str],
        compute: torch.dtype | None,
    ) -> None:
        ClipDiffusion.__init__(self, pipeline, name, encoders, defaults, words, compute)
        self.towers = (
            (self.tokenizer, pipeline.text_encoder),
            (spell_out(pipeline.tokenizer_2, pipeline), pipeline.text_encoder_2),
        )
        self.text_encoders = [encoder for _, encoder in self.towers]
        first, second = (tokenizer.get_vocab() for tokenizer, _ in self.towers)
        self.one_vocabulary = first == second

    @abstractmethod
    def _read_ids(self, ids: Sequence[Tensor], empty: Tensor, texts: Sequence[str] = ()) -> Cond:
        """Conditions from the token ids [n, length] of each CLIP; `empty` [n] marks the empty prompts.

        `texts` are read by a further text encoder, if there is one; by default "".
        """

    def _read_towers(self, ids: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The concatenated penultimate states [n, length, d] of both encoders, and the pooled embedding of each.

        Fewer rows than `ROWS_READ` are padded to that many: a CPU adds up the pooled embeddings of one or two rows in
        another order, so that a prompt's last bits would depend on which prompts are read with it.
        """
        n = len(ids[0])
        filled = map(fill_rows, ids)
        outs = [encoder(own, output_hidden_states=True) for own, (_, encoder) in zip(filled, self.towers, strict=True)]
        tokens = torch.cat([out.hidden_states[-2] for out in outs], dim=-1)[:n].to(self.dtype)
        return tokens, [out[0][:n].to(self.dtype) for out in outs]

    def count_tokens(self, text: str) -> Mapping[str, tuple[int, int]]:
        return {
            part: (count(tokenizer, text), self.max_tokens)
            for part, (tokenizer, _) in zip(TwinClip.searched, self.towers, strict=True)
        }

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Returns the first tokenizer's ids; the two tokenizers share a vocabulary and differ in their padding."""
        if not self.one_vocabulary:
            raise ValueError(f"the two tokenizers of {self.name} know different tokens: no embedding serves both")
        return ClipDiffusion.tokenize(self, texts)

    def get_embedding_table(self) -> Tensor:
        tables = [encoder.get_input_embeddings().weight for _, encoder in self.towers]
        return torch.cat(tables, dim=1).to(self.device)

    def encode_embedded(self, embeddings: Tensor, texts: Sequence[str] = ()) -> Cond:
        """Encodes as the contract says; a prompt ends where the end token's own embedding occurs first."""
        self._check_embeddings(embeddings)
        tables = [encoder.get_input_embeddings().weight for _, encoder in self.towers]
        parts = embeddings.split([table.shape[1] for table in tables], dim=2)
        end = self.tokenizer.eos_token_id
        ends = (parts[0] == tables[0][end].to(parts[0])).all(dim=2)
        after = ends.cumsum(dim=1) - ends.long() > 0
        # The ids only mark where the sentence ends; the encoders read the embeddings.
        ids = torch.where(ends, end, 0)
        with ExitStack() as reading:
            for (tokenizer, encoder), own, table in zip(self.towers, parts, tables, strict=True):
                padded = torch.where(after[:, :, None], table[tokenizer.pad_token_id].to(own), own)
                reading.enter_context(replace_embeddings(encoder, fill_rows(padded)))
            return self._read_ids([ids, ids], ends[:, 1], texts)

    def get_embedding(self, cond: Cond) -> Tensor:
        """Flat embeddings: tokens, then the pooled embedding."""
        return flatten_parts(cond)

    def _with_embedding(self, cond: Cond, embedding: Tensor) -> Cond:
        """Takes the tokens alone, so that the text's pooled embedding stays, or tokens and pooled embedding, flat."""
        return replace_parts(cond, embedding.to(self.device, self.dtype), self.name)
