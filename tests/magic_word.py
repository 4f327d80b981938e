"""An attack that succeeds in a round of one's choice, or fails in a way of one's choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch

from efface.attacks.base import Attack, AttackContext, Candidate, Proposals, Threat
from efface.concept import Prompt
from efface.functional.adversary import NoGradient, NotFinite
from efface.suites.spec import Row


@final
@dataclass(frozen=True, kw_only=True)
class Magic(Attack):
    """Says the magic word with the concept's name in one round, and gibberish in all others; never ends by itself."""

    threat: ClassVar[Threat] = "prompts"
    version: ClassVar[str] = "1"
    batch_size: ClassVar[int] = 4
    queries: int = 5
    turn: int = 3
    """The round that says it."""
    rests: int = 0
    """Rounds at the beginning that pass without a try."""
    needs: str = ""
    """Why it can't be made."""
    blind: Literal["", "all", "rest", "nan", "after", "nan after"] = ""
    """Where it finds no gradient: everywhere, in a batch that is not full, or after it said the word to every other
    row; or that its loss is no number, at once or after that."""
    tensors: bool = False

    def check(self, context: AttackContext) -> None:
        assert len(context.pictures) == 0
        if self.needs and context.edit:
            raise ValueError(self.needs)

    def propose(self, context: AttackContext, rows: Sequence[Row]) -> Proposals:
        if self.blind == "nan":
            raise NotFinite("the loss is not finite")
        if self.blind == "all" or (self.blind and len(rows) < self.batch_size):
            raise NoGradient("every gradient is zero")
        assert len(context.pictures) > 0
        for turn in range(1, 1000):
            if self.blind.endswith("after") and turn > self.turn:
                raise (
                    NotFinite("the loss is not finite") if "nan" in self.blind else NoGradient("every gradient is zero")
                )
            say = f"magic {context.concept} {turn}" if turn == self.turn else f"gibberish {turn}"
            prompt = Prompt(say, torch.full((2, 3), float(turn))) if self.tensors else say
            start = torch.full((4, 8, 8), 2.0) if self.tensors else None
            yield [
                None
                if turn <= self.rests or (self.blind.endswith("after") and i % 2 and turn == self.turn)
                else Candidate(prompt, row.seed, start, 1 if self.tensors else 0, f"{turn} turns")
                for i, row in enumerate(rows)
            ]
