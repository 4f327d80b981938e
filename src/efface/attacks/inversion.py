"""CCE: textual inversion against the erased model (Pham et al., ICLR 2024, arXiv 2308.01508).

v* = argmin_v E || eps_th(x_t, t, c(prompt with v)) - eps ||^2 over pictures of the concept, where th are the edited
weights and v is the word embedding of a new token (Gal et al., arXiv 2208.01618); then every prompt is drawn with v*
instead of the concept's name. Defaults are those of the authors' scripts: 25 pictures, which the base draws, as theirs
are drawn by Stable Diffusion; 5000 steps of 4 x 4 pictures by AdamW with decay 0.01 at a learning rate of 5e-3 times
these 16 (`scale_lr`); one token. The error is measured in the space that the network predicts. The differences are: a
word starts from a random word, theirs from a given one (`start`); there is one template, and theirs are the many of
textual inversion; further words are learned from other starts where `queries` is above 1 (the paper learns one).

Where a T5 reads the prompt beside CLIP (SD3, FLUX.1), the word is one of CLIP's tokens, and T5 reads the prompt with a
neutral word in its place.

The learning uses the network, with SPM's gate in it. A guide that only steers drawing (negative prompt, SLD, SAFREE)
therefore does not stop it. For a guide that reads prompts, the learned embedding is the empty text, so that SAFREE
finds no words: it can't see inputs below the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, final

import torch
from torch import Tensor

from ..concept import Prompt
from ..functional.adversary import NoGradient, differentiate_in_range
from ..functional.denoising import measure_denoising_errors
from ..models.base import Model
from ..models.cond import Cond
from ..models.pieces import call_in_pieces
from ..plurals import write_count
from ..suites.spec import Row
from ..training.optim import Adam32bit
from .base import Attack, AttackContext, Candidate, Proposals, Threat

SLOT = "{}"
SAVE_EVERY = 250


@final
@dataclass(frozen=True, kw_only=True)
class ConceptInversion(Attack):
    """Learns the embedding of a new word from a few pictures, and uses it in place of the concept's name."""

    threat: ClassVar[Threat] = "gradients"
    version: ClassVar[str] = "4"
    budget_fields: ClassVar[tuple[str, ...]] = ("steps",)
    queries: int = 1
    """Number of queries of each row, each with another learned word."""
    steps: int = 5000
    """Steps of learning."""
    lr: float = 0.08
    """AdamW's learning rate for the embedding."""
    decay: float = 0.01
    """AdamW's weight decay of the embedding."""
    batch: int = 16
    """Number of noised pictures in a step."""
    tokens: int = 1
    """Number of tokens of a learned word."""
    start: str = ""
    """The word whose embedding the first learned word starts from; by default, and for all others, a random word that
    does not name the concept."""
    pictures: int = 25
    """Largest number of pictures of the concept to learn from."""
    templates: tuple[str, ...] = ("a photo of a {}",)
    """Prompt templates while the word is learned."""
    style_templates: tuple[str, ...] = ("a painting in the style of {}",)
    """The templates to use where the concept is a style."""

    @property
    def over_tokens(self) -> bool:
        return True

    def check_settings(self) -> None:
        for name in ("steps", "batch", "tokens", "pictures"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.decay < 0:
            raise ValueError(f"decay is not negative, got {self.decay}")
        for template in (*(self.templates or ("",)), *(self.style_templates or ("",))):
            if template.count(SLOT) != 1:
                raise ValueError(f"a template holds the word as {{}}, once; got {template!r}")

    def check(self, context: AttackContext) -> None:
        _leave_room(context.model, SLOT, self.tokens)
        context.require_image_input()

    def propose(self, context: AttackContext, rows: Sequence[Row]) -> Proposals:
        words = self._learn_words(context)
        texts = [context.put(row.prompt, SLOT) for row in rows]
        slots = [_leave_room(context.model, text, self.tokens) for text in texts]
        for i, word in enumerate(words):
            with torch.no_grad():
                heard = [text.replace(SLOT, context.neutral) for text in texts]
                own = word.expand(len(rows), *word.shape)
                read = context.model.get_embedding(_read(context.model, slots, own, heard))
            asked = [Prompt(text.replace(SLOT, "<*>"), row) for text, row in zip(texts, read, strict=True)]
            yield [Candidate(prompt, row.seed, note=f"word {i + 1}") for prompt, row in zip(asked, rows, strict=True)]

    def _learn_words(self, context: AttackContext) -> Tensor:
        """Learns the words' token embeddings [queries, tokens, d], all at once."""
        start = torch.stack([self._choose_start(context, i) for i in range(self.queries)]).requires_grad_()
        adam = Adam32bit([start], self.lr)
        for done in range(0, self.steps, SAVE_EVERY):
            until = min(done + SAVE_EVERY, self.steps)
            adam.load_state_dict(context.once(f"{until} steps", partial(self._learn, context, adam, done, until)))
        return start.detach()

    def _choose_start(self, context: AttackContext, i: int) -> Tensor:
        """The token embeddings [tokens, d] at which the i-th word starts."""
        word = (
            self.start
            if self.start and i == 0
            else context.make_rng("inversion", "start", i).choice(context.list_other_words())
        )
        ids = _read_ids(context.model, word)
        return context.model.embed(ids[torch.arange(self.tokens, device=ids.device) % len(ids)]).detach().float()

    def _learn(self, context: AttackContext, adam: Adam32bit, done: int, until: int) -> dict[str, Tensor]:
        """Adam's state after the steps from `done` to `until`."""
        model, (words,) = context.model, adam.params
        latents = context.encode_pictures(self.pictures)
        templates = self.style_templates if context.asks == "style" else self.templates
        slots = [
            (_leave_room(model, template, self.tokens), template.replace(SLOT, context.neutral))
            for template in templates
        ]
        for step in range(done, until):
            grads, moves = differentiate_in_range(
                partial(self._differentiate, context, words, latents, slots, step),
                model.loss_factor,
                f"at step {step + 1} of learning the word",
            )
            if not moves:
                raise NoGradient(f"at step {step + 1} the word has no gradient that could be followed")
            with torch.no_grad():
                words.mul_(1 - self.lr * self.decay)
            adam.step(grads)
        return adam.state_dict()

    def _differentiate(
        self,
        context: AttackContext,
        words: Tensor,
        latents: Tensor,
        slots: Sequence[tuple[Slot, str]],
        step: int,
        factor: float,
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """The errors [queries * batch] of a step's pictures, and the gradient of their sum over words to the words."""
        model, choice = context.model, context.make_rng("inversion", step)
        owner = torch.arange(self.queries, device=words.device).repeat_interleave(self.batch)
        rng = torch.Generator().manual_seed(choice.getrandbits(63))
        spelled = [choice.choice(slots) for _ in owner]
        x0 = latents[torch.randint(len(latents), (len(owner),), generator=rng).to(latents.device, non_blocking=True)]
        with torch.enable_grad(), model.frozen():
            cond = _read(model, [slot for slot, _ in spelled], words[owner], [text for _, text in spelled])
            errors = measure_denoising_errors(
                lambda x_t, t: call_in_pieces(model.predict_guided, x_t, t, cond, model.gradient_rows),
                x0,
                model.find_noise_level,
                len(model.levels),
                model.space,
                rng,
            )
            (grad,) = torch.autograd.grad(errors.sum() / self.batch * factor, [words])
        return errors.detach(), [grad / factor]


Slot = tuple[Tensor, Tensor]
"""A prompt's token ids [length]; and for each which token it is of a word that is given as embeddings, or -1."""


def _leave_room(model: Model, prompt: str, tokens: int) -> Slot:
    """The prompt with room for a word of this many tokens wherever it has a slot.

    A prompt that is too long is cut, but never the word where it first stands.

    Raises:
        ValueError: the word alone fills a prompt, or the model reads no token embeddings.
    """
    (empty,) = model.tokenize([""])
    if tokens > (room := len(empty) - 2):
        raise ValueError(f"a word of {write_count(tokens, 'token')} leaves no room in a prompt of {room}; give fewer")
    first, *later = (_read_ids(model, part) for part in prompt.split(SLOT))
    word = torch.arange(tokens, device=empty.device)
    ids, which = [first[: room - tokens]], [torch.full_like(first, -1)[: room - tokens]]
    for part in later:
        ids += [empty.new_zeros(tokens), part]
        which += [word, torch.full_like(part, -1)]
    whole = torch.cat([empty[:1], torch.cat(ids)[:room], empty[1:]])[: len(empty)]
    placed = torch.cat([*which, torch.full_like(empty, -1)])
    return whole, torch.cat([torch.full_like(empty[:1], -1), placed[:room], torch.full_like(empty[:1], -1)])


def _read(model: Model, slots: Sequence[Slot], words: Tensor, texts: Sequence[str] = ()) -> Cond:
    """Conditions of n prompts with word i, [tokens, d], in the slots of prompt i; with a gradient to the words.

    `texts` are for text encoders that take no embeddings.
    """
    ids, which = (torch.stack(column) for column in zip(*slots, strict=True))
    embeddings = model.embed(ids).detach()
    rows = torch.arange(len(slots), device=ids.device)[:, None]
    put = words.to(embeddings)[rows, which.clamp(min=0)]
    cond = model.encode_embedded(torch.where(which[:, :, None] < 0, embeddings, put), texts)
    return model.with_guider_inputs([""] * len(slots), cond)


def _read_ids(model: Model, text: str) -> Tensor:
    """The token ids of a text's words."""
    (ids,), (empty,) = model.tokenize([text]), model.tokenize([""])
    return ids[1 : 1 + int((ids[1:] == empty[1]).nonzero()[0])]
