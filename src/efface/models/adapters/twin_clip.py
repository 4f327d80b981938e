"""Two CLIP text encoders that read a prompt side by side, as SDXL and Stable Diffusion 3 have them."""

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
"""The fewest rows that the encoders read at once."""


def fill_rows(rows: Tensor) -> Tensor:
    """Rows [n, ...], the last one repeated where they are fewer than `ROWS_READ`."""
    return torch.cat([rows, rows[-1:].expand(max(0, ROWS_READ - len(rows)), *rows.shape[1:])])


class TwinClip(ClipDiffusion):
    """A pipeline of two CLIP text encoders, whose penultimate states are read side by side, and of pooled embeddings.

    A token's embedding is that of both encoders, side by side; a prompt's embedding is flat, all that the encoders say
    of its tokens and then what is pooled.
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
        """Conditions of the token ids [n, length] for each CLIP; `empty` [n] are the empty prompts.

        `texts` are for a further text encoder; by default "".
        """

    def _read_towers(self, ids: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The penultimate states [n, length, d] of both encoders side by side, and the pooled embedding of each.

        Fewer than `ROWS_READ` rows are read as that many: a CPU multiplies the pooled embeddings of one or two rows in
        another order, and a prompt's last bits would depend on which prompts are read with it.
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
        """The first tokenizer's; both have one vocabulary, and differ in what they pad with."""
        if not self.one_vocabulary:
            raise ValueError(f"the two tokenizers of {self.name} know different tokens: no embedding serves both")
        return ClipDiffusion.tokenize(self, texts)

    def embedding_table(self) -> Tensor:
        tables = [encoder.get_input_embeddings().weight for _, encoder in self.towers]
        return torch.cat(tables, dim=1).to(self.device)

    def encode_embedded(self, embeddings: Tensor, texts: Sequence[str] = ()) -> Cond:
        """As every adapter does; a prompt ends where the end's own embedding stands first, and padding follows."""
        self._check_embeddings(embeddings)
        tables = [encoder.get_input_embeddings().weight for _, encoder in self.towers]
        parts = embeddings.split([table.shape[1] for table in tables], dim=2)
        end = self.tokenizer.eos_token_id
        ends = (parts[0] == tables[0][end].to(parts[0])).all(dim=2)
        after = ends.cumsum(dim=1) - ends.long() > 0
        # Ids say where the sentence ends, and no more: what is read are the embeddings.
        ids = torch.where(ends, end, 0)
        with ExitStack() as reading:
            for (tokenizer, encoder), own, table in zip(self.towers, parts, tables, strict=True):
                padded = torch.where(after[:, :, None], table[tokenizer.pad_token_id].to(own), own)
                reading.enter_context(replace_embeddings(encoder, fill_rows(padded)))
            return self._read_ids([ids, ids], ends[:, 1], texts)

    def embedding_of(self, cond: Cond) -> Tensor:
        """Flat, tokens and then pooled."""
        return flatten_parts(cond)

    def _with_embedding(self, cond: Cond, embedding: Tensor) -> Cond:
        """Either the tokens alone, and the text's pooled embedding stays; or, flat, tokens and then pooled."""
        return replace_parts(cond, embedding.to(self.device, self.dtype), self.name)
