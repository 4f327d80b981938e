"""The training loop: every method's, without special cases.

One copy of the weights serves teacher and student: the student's tensors of the trained subset are swapped into the
module by reference for its pass, and stay there until the gradients are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recomputed

from ..concept import Erasure
from ..edits.edit import Edit
from ..edits.provenance import check_same_run, provenance, versions
from ..files import check_writable, read_tensors, write_tensors
from ..functional.schedules import Space, space_weight
from ..models.base import Model
from ..models.cond import Cond
from .distributed import team
from .interfaces import Ask, Balance, Player, Role, Source, Stateful, Term, Turn, Update

SAVE_EVERY = 25
"""Turns after which the state is kept: as a checkpoint where there is to be one, and as the last good Edit."""


class Diverged(ArithmeticError):
    """A loss or gradient is no longer a number, and the step before may be to blame.

    `edit` is the last state that was kept of those whose losses and gradients were numbers.
    """

    def __init__(self, message: str, edit: Edit) -> None:
        ArithmeticError.__init__(self, message)
        self.edit = edit


@final
@dataclass
class Game:
    """One erasure in training."""

    model: Model
    erasure: Erasure
    name: str
    """The method's, for the record."""
    settings: Mapping[str, Any]
    """The method's arguments."""
    terms: Sequence[Term]
    update: Update
    balance: Balance

    def __post_init__(self) -> None:
        self.base = self.model.fingerprint()
        self.uncond = self.model.encode([""])
        if not {*self.balance.needs} <= {term.role for term in self.terms}:
            raise ValueError(f"{self.name} needs something to {' and something to '.join(self.balance.needs)}")
        self.update.prepare(self)
        self.live = any(not name.startswith(f"{self.model.denoiser}.") for name in self.update.moved())
        for term in self.terms:
            term.prepare(self)
        if self.live and self.model.parked:
            raise ValueError(f"{self.name} trains a text encoder, which must stay on the device: leave out --offload")
        self.update.ready(self)
        self.players: list[Player] = [self.update, *(p for term in self.terms for p in term.searches())]
        self.good: Edit | None = None

    def play(self, progress: Callable[..., None] | None = None, checkpoint: str | Path | None = None) -> Edit:
        """All turns, from the start or from where the checkpoint stands.

        Raises:
            Diverged: it left the numbers; no checkpoint is left of the state in which it did.
        """
        order = list(self._clock())
        file = check_writable(checkpoint) if checkpoint else None
        saved = first = self._resume(file) if file and file.exists() else 0
        for index in range(first, len(order)):
            try:
                losses = self._move(self._turn(index, order[index]))
            except Diverged:
                if file and saved == index and team().first:
                    file.unlink(missing_ok=True)
                raise
            except OSError:  # the player has not moved yet
                if file:
                    with suppress(OSError):  # no room for it either: then the one before stands
                        self._save(file, index)
                raise
            done = index + 1
            if file and done % SAVE_EVERY == 0:
                self._save(file, done)
                saved = done
            if progress:
                progress(done, len(order), player=type(order[index]).__name__, loss=losses)
        if file and team().first:
            file.unlink(missing_ok=True)
        self.good = None
        return self.edit()

    def edit(self) -> Edit:
        """The state of the game as an Edit."""
        notes = {key: value for part in (*self.terms, self.update) for key, value in part.notes().items()}
        return Edit(self.update.payload(), {**self._record(), "versions": versions(), "notes": notes})

    def prompts(self, turn: Turn, concepts: Sequence[str]) -> list[str]:
        """The row's concept under the row's template, for each row of the turn."""
        templates = self.settings["templates"]
        return [templates[i].format(concept) for i, concept in zip(turn.templates, concepts, strict=True)]

    def targets(self) -> list[str]:
        """Every target under every template."""
        return [form.format(target) for target in self.erasure.targets for form in self.settings["templates"]]

    def weight(self, t: Tensor, space: Space) -> Tensor:
        """Weight [n] that turns squared errors in the model's own space into those in `space`, at t [n]."""
        return space_weight(self.model.noise_level(t), self.model.space, space)

    def sources(self) -> list[Source]:
        """Of all terms; what two of them share counts once."""
        return list({id(source): source for term in self.terms for source in term.sources().values()}.values())

    # The parts of a turn.

    def _clock(self) -> Iterator[Player]:
        for _ in range(self.settings["steps"]):
            for player in self.players:
                for _ in range(player.turns):
                    yield player

    def _turn(self, index: int, player: Player, salt: int = 0) -> Turn:
        """The turn's random choices; `salt` gives others at the same index, for looks aside."""
        rng = torch.Generator().manual_seed((self.settings["seed"] * 1_000_003 + index) * 1_009 + salt)
        n = self.settings["batch"]
        bounds = (len(self.erasure.targets), len(self.settings["templates"]), 2**31, self.settings["draw_steps"])
        choices = [torch.randint(bound, (n,), generator=rng).tolist() for bound in bounds]
        return Turn(index, player, rng, *choices)

    def _move(self, turn: Turn) -> dict[str, float]:
        """One step of the turn's player; the losses by role."""
        ours = turn.player is self.update
        floor = self._floor(turn) if ours and self.balance.inner else None
        values: dict[Role, float] = {}

        def grad_of(shares: Mapping[Role, float]) -> tuple[Mapping[Role, float], Sequence[Tensor]]:
            found, grads = self.gradient(turn, shares)
            values.update(found)
            return found, grads

        grads = self.balance(grad_of, floor) if ours else grad_of({"erase": 1.0, "keep": 1.0, "cost": 1.0})[1]
        norms = torch.stack([grad.float().norm() for grad in grads])
        self._demand_finite(turn, norms, f"gradient, at loss {values}")
        if self.good is None or turn.index % SAVE_EVERY == 0:
            self.good = None  # the old one goes first: each is as large as what learns
            self.good = self.edit()
        turn.player.step(grads)
        return {str(role): value for role, value in values.items()}

    def gradient(self, turn: Turn, shares: Mapping[Role, float]) -> tuple[Mapping[Role, float], Sequence[Tensor]]:
        """These roles' losses, and the gradient of their weighted sum for the params of the turn's player.

        One pass for all of them, whose activations are gone after it. A role that has nothing to say this turn is left
        out of the losses.
        """
        with self.losses(turn, *shares) as losses:
            values: dict[Role, float] = {role: loss.item() for role, loss in losses.items()}
            self._demand_finite(turn, torch.tensor(list(values.values())), f"loss {values}")
            total = torch.stack([shares[role] * loss for role, loss in losses.items()]).sum()
            return values, gradients(turn.player.params(), total)

    @contextmanager
    def losses(self, turn: Turn, *roles: Role) -> Iterator[dict[Role, Tensor]]:
        """The losses of all terms, or of these roles'; differentiate them within, where the student is in place."""
        asked = self.asked(turn, *roles)
        flat = [ask for _, asks in asked for ask in asks.values()]
        frozen = self._answer_frozen([ask for ask in flat if ask.who == "frozen"])
        with _still(self.model), self.update.bound():
            replies = frozen | self._predict([a for a in flat if a.who == "student"], self.settings["micro_batch"])
            losses: dict[Role, Tensor] = {}
            for term, asks in asked:
                loss = term.loss(self, asks, {key: replies[id(ask)] for key, ask in asks.items()})
                losses[term.role] = losses[term.role] + loss if term.role in losses else loss
            yield losses

    def asked(self, turn: Turn, *roles: Role) -> list[tuple[Term, Mapping[str, Ask]]]:
        """What all terms ask, or those of these roles; those that have nothing to say this turn are left out.

        Erasing asks first: asked alone, at the same turn, it then draws the same.
        """
        terms = sorted((t for t in self.terms if not roles or t.role in roles), key=lambda term: term.role != "erase")
        return [(term, asks) for term in terms if (asks := term.asks(self, turn)) is not None]

    def _floor(self, turn: Turn) -> float:
        """The erasing loss of this turn after the balance's inner steps on it alone; the update is put back."""
        before = self.update.state()
        for k in range(self.balance.inner):
            with self.losses(self.look(turn.index, salt=1 + k), "erase") as losses:
                grads = gradients(self.update.params(), losses["erase"])
            self.update.step(grads)
        # Not the turn itself: its generator would have moved on, and the step would meet other states than the floor.
        with torch.no_grad(), self.losses(self.look(turn.index, salt=0), "erase") as losses:
            floor = losses["erase"].item()
        self.update.restore(before)
        return floor

    def look(self, index: int, salt: int) -> Turn:
        """A turn of the update aside from the game, with random choices of its own."""
        return self._turn(index, self.update, salt)

    def _answer_frozen(self, asks: Sequence[Ask]) -> dict[int, Tensor]:
        """Replies by id of the ask: what is known already for nothing, the rest in one call."""
        replies = {id(ask): ask.rows.known[ask.known] for ask in asks if ask.known in ask.rows.known}
        with torch.no_grad():
            return replies | self._predict([ask for ask in asks if id(ask) not in replies])

    def _predict(self, asks: Sequence[Ask], rows_at_once: int = 0) -> dict[int, Tensor]:
        """One batched prediction for all asks; in pieces whose activations are recomputed, where that is wanted.

        The same states under the same condition are predicted once, however many terms ask.
        """
        if not asks:
            return {}
        asked, asks = asks, list({(id(ask.rows), id(ask.cond)): ask for ask in asks}.values())
        x, t = torch.cat([ask.rows.x for ask in asks]), torch.cat([ask.rows.t for ask in asks])
        cond = Cond.cat([self._cond(ask).expand(len(ask.rows.x)) for ask in asks])
        out = team().spread(lambda own: self._pieces(x[own], t[own], cond[own], rows_at_once), len(x))
        parts = out.split([len(ask.rows.x) for ask in asks])
        replies = {(id(ask.rows), id(ask.cond)): part for ask, part in zip(asks, parts, strict=True)}
        return {id(ask): replies[id(ask.rows), id(ask.cond)] for ask in asked}

    def _pieces(self, x: Tensor, t: Tensor, cond: Cond, rows_at_once: int) -> Tensor:
        if not 0 < rows_at_once < len(x):
            return self._network(x, t, cond)
        pieces = [slice(i, i + rows_at_once) for i in range(0, len(x), rows_at_once)]
        return torch.cat(
            [
                recomputed(self._network, x[p], t[p], cond[p], use_reentrant=False, determinism_check="none")
                for p in pieces
            ]  # type: ignore[list-item]
        )

    def _network(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        return self.model.predict(x, t, cond)[0]

    def _cond(self, ask: Ask) -> Cond:
        """The ask's condition; read anew, with a gradient, where the student's text encoder learns."""
        if ask.who == "student" and ask.prompts and (self.live or ask.prefix is not None):
            return self.model.encode_with_grad(ask.prompts, ask.prefix)
        return ask.cond

    def _demand_finite(self, turn: Turn, values: Tensor, what: str) -> None:
        if not values.isfinite().all():
            player = type(turn.player).__name__
            message = f"{self.name} diverged at turn {turn.index + 1} ({player}): {what}; a smaller lr may help"
            raise Diverged(message, self.good or self.edit())

    # Checkpoints.

    def _record(self) -> dict[str, Any]:
        return provenance(self.model, self.erasure, self.name, self.settings, self.base)

    def _stateful(self) -> list[Stateful]:
        """What a checkpoint holds the state of."""
        return [*self.players, *self.terms, *self.sources()]

    def _save(self, file: Path, done: int) -> None:
        if not team().first:
            return
        parts = enumerate(self._stateful())
        tensors = {f"{i}/{key}": value for i, part in parts for key, value in part.state().items()}
        write_tensors(file, tensors, {**self._record(), "kind": "checkpoint", "done": done})

    def _resume(self, file: Path) -> int:
        tensors, meta = read_tensors(file)
        check_same_run(file, meta, {**self._record(), "kind": "checkpoint"})
        for i, part in enumerate(self._stateful()):
            prefix = f"{i}/"
            part.restore({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        return meta["done"]


@contextmanager
def _still(model: Model) -> Iterator[None]:
    """Within, no weight in place asks for a gradient: what does not learn then keeps no activations for one."""
    asking = [tensor for tensor in model.weights.values() if tensor.requires_grad and tensor.is_leaf]
    try:
        for tensor in asking:
            tensor.requires_grad_(False)
        yield
    finally:
        for tensor in asking:
            tensor.requires_grad_(True)


def gradients(params: Sequence[Tensor], loss: Tensor) -> Sequence[Tensor]:
    """A scalar, differentiated by these; zero where it does not depend on one. Activations go on its way."""
    grads = torch.autograd.grad(loss, params, allow_unused=True)
    return team().mean([torch.zeros_like(p) if g is None else g for p, g in zip(params, grads, strict=True)])
