"""States on guided trajectories under a row's own condition, the frozen model's or the student's.

The papers draw a fresh partial trajectory of the model in training for every update (ESD's and EAP's code: DDIM, start
guidance 3). The state here is exactly at the timestep that it is scored at, which the original code misses by 40 to 60
training steps. A trajectory of the *frozen* model has already computed eps(c) and eps("") at every state it visits, so
one batched draw, kept, answers the teacher's part of many updates for nothing. Between the two lies a recording of the
student, drawn anew every few turns: its states are the student's own of a while ago, and many are drawn at once.

Drawings are made in batches of one size, filled up where prompts are few: a row's last bits then depend on its prompt,
its seed and that size alone, all of which are in the key that it is kept by. So a resumed run, a run that finds the
recordings of another, and several processes that share the drawing all train on the same numbers.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from math import prod
from typing import Any, final

import torch
from torch import Tensor

from ...edits.provenance import versions
from ...models.cond import Cond
from ...models.trajectory import Draw, Sampler
from ...models.trajectory_cache import COLUMNS, TrajectoryCache, take_picture
from ..distributed import team
from ..interfaces import Rows, Source, Takes, Turn
from ..trainer import Game

Asked = tuple[str, int]
"""A trajectory: its prompt, and the seed of its start noise."""


@final
class Student(Source):
    """A fresh partial trajectory of the model in training, for every row of every turn."""

    def __init__(self, steps: int, guidance: float, sampler: Sampler = "ddim") -> None:
        self.steps, self.guidance = steps, guidance
        self.sampler: Sampler = sampler

    def rows(self, game: Game, turn: Turn, prompts: Sequence[str], cond: Cond) -> Rows:
        """A batched draw as far as the row that goes furthest; the others were picked up on the way."""
        cond = cond.detach().expand(len(turn.points))
        with torch.no_grad(), game.update.bound():
            states = team().spread(lambda own: self._drawn(game, turn, cond, own), len(turn.points))
        t = game.model.timesteps(self.steps, self.sampler).to(game.model.device)[list(turn.points)]
        return Rows(states, t)

    def takes(self, game: Game) -> Takes:
        n = game.settings["batch"]
        return Takes(n, _traced(game, self.steps, n) if n > 1 else 0)

    def _drawn(self, game: Game, turn: Turn, cond: Cond, own: slice) -> Tensor:
        """The states of some of the turn's rows."""
        points = turn.points[own]
        last = max(points)
        draw = game.model.sample(
            cond[own],
            game.uncond,
            turn.noise[own],
            steps=self.steps,
            guidance=self.guidance,
            until=last,
            record=min(points) < last,
            sampler=self.sampler,
        )
        return torch.stack([draw.x[i] if k == last else draw.states[k, i] for i, k in enumerate(points)])


class Recorded(Source):
    """`paths` whole trajectories of each prompt, drawn when one is first asked for and, given `refresh`, anew."""

    def __init__(self, steps: int, guidance: float, paths: int, refresh: int = 0, sampler: Sampler = "ddim") -> None:
        self.steps, self.guidance, self.paths, self.refresh = steps, guidance, paths, refresh
        self.sampler: Sampler = sampler
        self.epoch = 0
        self.expected: dict[str, None] = {}
        self.found: dict[Asked, Any] = {}

    def expect(self, prompts: Sequence[str]) -> None:
        """Prompts that will be asked for: they are drawn together, when the first of them is."""
        self.expected |= dict.fromkeys(prompts)

    def rows(self, game: Game, turn: Turn, prompts: Sequence[str], cond: Cond) -> Rows:
        """Rows of the recordings, each at a place and on a trajectory that the turn's random choices name."""
        if (epoch := turn.index // self.refresh if self.refresh else 0) != self.epoch:
            self.leave(game)
            self.epoch, self.found = epoch, {}
        seeds = self.seeds(game)
        asked = [(prompt, seeds[noise % self.paths]) for prompt, noise in zip(prompts, turn.noise, strict=True)]
        missing = dict.fromkeys(prompt for prompt, seed in asked if (prompt, seed) not in self.found)
        alone = [[prompt] for prompt in missing if prompt not in self.expected]
        together = [list(self.expected)] if len(alone) < len(missing) else []
        for group in together + alone:
            self.record(game, [(prompt, seed) for prompt in group for seed in seeds])
        return self.read(game, asked, turn.points)

    @abstractmethod
    def record(self, game: Game, asked: Sequence[Asked]) -> None:
        """Sees to it that these trajectories are `found`."""

    @abstractmethod
    def read(self, game: Game, asked: Sequence[Asked], points: Sequence[int]) -> Rows:
        """The states of these trajectories at these places."""

    def leave(self, game: Game) -> None:
        """Lets go of what was found, before it is drawn anew."""

    def seeds(self, game: Game) -> list[int]:
        """Of the start noises: far from the small seeds that pictures are drawn and judged with."""
        first = 2**40 + game.settings["seed"] * 1_000_003 + self.epoch * self.paths
        return [first + i for i in range(self.paths)]

    def drawn(self, game: Game, asked: Sequence[Asked], size: int) -> Iterator[Draw]:
        """The recording of each trajectory, drawn `size` at once."""
        mine = team()
        parts = [asked[i : i + size] for i in range(0, len(asked), size)]
        for start in range(0, len(parts), mine.size):
            # Each process draws a part of its own; in the last round there may be fewer parts than processes.
            part = parts[min(start + mine.rank, len(parts) - 1)]
            draws = mine.collected(self._draw(game, [*part, *[part[-1]] * (size - len(part))]))
            for draw, whose in zip(draws, parts[start : start + mine.size], strict=False):
                yield from (take_picture(draw, i) for i in range(len(whose)))

    def _draw(self, game: Game, asked: Sequence[Asked]) -> Draw:
        """Under the base's reading of the prompts, whoever draws."""
        cond, seeds = game.model.encode([prompt for prompt, _ in asked]), [seed for _, seed in asked]
        with self.drawing(game):
            return game.model.sample(
                cond,
                game.uncond,
                seeds,
                steps=self.steps,
                guidance=self.guidance,
                record=True,
                sampler=self.sampler,
            )

    def drawing(self, game: Game) -> AbstractContextManager[None]:
        """Within, the weights are in place that draw."""
        return nullcontext()

    def numbers(self, game: Game) -> tuple[int, int, int]:
        """How many are drawn at once, bytes recorded of them meanwhile, and numbers in the states of all expected."""
        state, paths = prod(game.model.latent_shape), len(self.expected) * self.paths
        n = min(game.model.drawn_together, paths or self.paths)
        return n, _traced(game, self.steps, n), self.steps * paths * state


@final
class Refreshed(Recorded):
    """Recordings of the model in training: states alone, for what it said there was the student's word.

    Nothing can bring the weights back that drew them, so they are a part of what a resumed game needs.
    The first are the base's, which is what a training starts from: they know the teacher's answers.
    """

    def __init__(self, steps: int, guidance: float, paths: int, refresh: int, sampler: Sampler = "ddim") -> None:
        Recorded.__init__(self, steps, guidance, paths, refresh, sampler)
        self.first = Frozen(steps, guidance, paths, sampler=sampler)

    def expect(self, prompts: Sequence[str]) -> None:
        self.first.expect(prompts)
        Recorded.expect(self, prompts)

    def rows(self, game: Game, turn: Turn, prompts: Sequence[str], cond: Cond) -> Rows:
        who = self.first if turn.index < self.refresh else super()
        return who.rows(game, turn, prompts, cond)

    def leave(self, game: Game) -> None:
        self.first.leave(game)

    def record(self, game: Game, asked: Sequence[Asked]) -> None:
        size = min(game.model.drawn_together, -(-len(asked) // team().size))
        for one, draw in zip(asked, self.drawn(game, asked, size), strict=True):
            self.found[one] = draw.states[:, 0].cpu().clone(memory_format=torch.contiguous_format)

    def read(self, game: Game, asked: Sequence[Asked], points: Sequence[int]) -> Rows:
        x = torch.stack([self.found[one][k] for one, k in zip(asked, points, strict=True)])
        t = game.model.timesteps(self.steps, self.sampler)[list(points)]
        return Rows(x.to(game.model.device), t.to(game.model.device))

    def drawing(self, game: Game) -> AbstractContextManager[None]:
        return game.update.bound()

    def takes(self, game: Game) -> Takes:
        first, states = self.first.takes(game), self.numbers(game)[2] * game.model.dtype.itemsize
        return replace(first, held=max(0, states - game.model.recordings.bound))

    def state(self) -> dict[str, Tensor]:
        return {"epoch": torch.tensor(self.epoch)} | {f"{seed} {prompt}": x for (prompt, seed), x in self.found.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.epoch = int(state["epoch"])
        pairs = ((key.partition(" "), x) for key, x in state.items() if key != "epoch")
        self.found = {(prompt, int(seed)): x for (seed, _, prompt), x in pairs}


@final
class Frozen(Recorded):
    """Recordings of the frozen model, by the keys that they are kept under."""

    def __init__(self, steps: int, guidance: float, paths: int, refresh: int = 0, sampler: Sampler = "ddim") -> None:
        Recorded.__init__(self, steps, guidance, paths, refresh, sampler)
        self.private = TrajectoryCache()

    def record(self, game: Game, asked: Sequence[Asked]) -> None:
        kept, size = self._kept(game), min(game.model.drawn_together, len(asked))
        facts = self._facts(game, size)
        keys = {one: _hash({**facts, "prompt": one[0], "seed": one[1]}) for one in asked}
        # Files may come and go between two processes' looks at a folder; all must draw the same.
        wanted = team().any([key not in kept for key in keys.values()], game.model.device)
        missing = [one for one, is_ in zip(keys, wanted, strict=True) if is_]
        for one, draw in zip(missing, self.drawn(game, missing, size), strict=True):
            kept.put(keys[one], draw)
        self.found |= keys

    def read(self, game: Game, asked: Sequence[Asked], points: Sequence[int]) -> Rows:
        """`known` holds the frozen predictions under the row's condition and under ""."""
        kept = self._kept(game)
        rows = [kept.at(self.found[one], k) for one, k in zip(asked, points, strict=True)]
        t, x, *eps = (torch.stack(column).to(game.model.device) for column in zip(*rows, strict=True))
        return Rows(x, t, dict(zip(("eps_c", "eps_0"), (e.to(x.dtype) for e in eps), strict=True)))

    def leave(self, game: Game) -> None:
        for key in self.found.values():
            self._kept(game).evict(key)
        self.found = {}

    def takes(self, game: Game) -> Takes:
        model, (n, traced, states) = game.model, self.numbers(game)
        return Takes(n, traced, states * (model.dtype.itemsize + 2 * (model.compute or model.dtype).itemsize))

    def _kept(self, game: Game) -> TrajectoryCache:
        """The model's recordings; this source's own while other weights than the base's are in place."""
        return game.model.recordings if game.model.untouched else self.private

    def _facts(self, game: Game, size: int) -> dict[str, Any]:
        """What a recording depends on, beside its prompt and its seed."""
        model = game.model
        return {
            "together": size,
            "draw": [self.steps, self.guidance, self.sampler, str(model.scheduler(self.sampler).config)],
            "base": game.base,
            "numbers": [str(model.dtype), str(model.compute), model.device.type, list(model.latent_shape)],
            "versions": versions(),
        }


def _traced(game: Game, steps: int, n: int) -> int:
    """Bytes of what is recorded of n drawings."""
    return len(COLUMNS) * steps * n * prod(game.model.latent_shape) * game.model.dtype.itemsize


def _hash(facts: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()
