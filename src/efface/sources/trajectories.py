"""States on guided trajectories under a row's own condition, the frozen model's or the student's.

The papers draw a fresh partial trajectory of the model in training for every update (ESD's and EAP's code: DDIM, start
guidance 3). The state here is exactly at the timestep that it is scored at, which the original code misses by 40 to 60
training steps. A trajectory of the *frozen* model has already computed eps(c) and eps("") at every state it visits, so
one batched draw, kept, answers the teacher's part of many updates for nothing.

Drawings are made in batches of one size, filled up where prompts are few: a row's last bits then depend on its prompt,
its seed and that size alone, all of which are in the key that it is kept by. So a resumed run, a run that finds the
recordings of another, and several processes that share the drawing all train on the same numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from math import prod
from typing import final

import torch

from ..game import Game, OnTrajectories, Rows, Source, Takes, Turn, versions
from ..game.parallel import team
from ..models.base import Draw, Sampler
from ..models.cond import Cond
from ..models.recordings import COLUMNS, Recordings, at_once, cut, joined


def trajectories(method: OnTrajectories, paths: int) -> Source:
    """The source that the method's settings name; `paths` trajectories a prompt where they are stored."""
    if method.source == "student":
        return Student(method.draw_steps, method.guidance, method.sampler)
    if method.source == "frozen":
        return Frozen(method.draw_steps, method.guidance, paths, method.refresh, method.sampler)
    raise ValueError(f"no source {method.source!r}; there are student, frozen")


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

    def _drawn(self, game: Game, turn: Turn, cond: Cond, own: slice) -> torch.Tensor:
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


@final
class Frozen(Source):
    """A recorded draw of the frozen model: `paths` trajectories a prompt, drawn when first asked for."""

    def __init__(self, steps: int, guidance: float, paths: int, refresh: int = 0, sampler: Sampler = "ddim") -> None:
        self.steps, self.guidance, self.paths, self.refresh = steps, guidance, paths, refresh
        self.sampler: Sampler = sampler
        self.epoch = 0
        self.expected: dict[str, None] = {}
        self.keys: dict[str, str] = {}
        self.private = Recordings()

    def expect(self, prompts: Sequence[str]) -> None:
        """Prompts that will be asked for: they are drawn together, when the first of them is."""
        self.expected |= dict.fromkeys(prompts)

    def rows(self, game: Game, turn: Turn, prompts: Sequence[str], cond: Cond) -> Rows:
        """Rows of the store; their `known` holds the frozen predictions under the row's condition and under ""."""
        epoch = turn.index // self.refresh if self.refresh else 0
        if epoch != self.epoch:
            for key in self.keys.values():
                self._kept(game).forget(key)
            self.epoch, self.keys = epoch, {}
        self._demand(game, [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.keys])
        kept = self._kept(game)
        picks = zip(prompts, turn.points, turn.noise, strict=True)
        found = [kept.at(self.keys[prompt], k, seed % self.paths) for prompt, k, seed in picks]
        t, x, *eps = (torch.stack(column).to(game.model.device) for column in zip(*found, strict=True))
        return Rows(x, t, dict(zip(("eps_c", "eps_0"), (e.to(x.dtype) for e in eps), strict=True)))

    def takes(self, game: Game) -> Takes:
        paths = len(self.expected) * self.paths
        n = min(at_once(game.model.latent_shape), paths or self.paths)
        numbers, model = self.steps * paths * prod(game.model.latent_shape), game.model
        kept = numbers * (model.dtype.itemsize + 2 * (model.compute or model.dtype).itemsize)
        return Takes(n, _traced(game, self.steps, n), kept)

    def seeds(self, game: Game) -> list[int]:
        """Of the stored start noises: far from the small seeds that pictures are drawn and judged with."""
        first = 2**40 + game.settings["seed"] * 1_000_003 + self.epoch * self.paths
        return [first + i for i in range(self.paths)]

    def _kept(self, game: Game) -> Recordings:
        """The model's recordings; this source's own while other weights than the base's are in place."""
        return game.model.recordings if game.model.untouched else self.private

    def _demand(self, game: Game, prompts: Sequence[str]) -> None:
        """Sees to it that these prompts are recorded; with an expected one all that are expected."""
        alone = [prompt for prompt in prompts if prompt not in self.expected]
        together = list(self.expected) if len(alone) < len(prompts) else []
        for group in ([together] if together else []) + [[prompt] for prompt in alone]:
            size = min(at_once(game.model.latent_shape), len(group) * self.paths)
            keys = {prompt: self._key(game, prompt, size) for prompt in group}
            # Files may come and go between two processes' looks at a folder; all must draw the same.
            wanted = team().any([keys[prompt] not in self._kept(game) for prompt in group], game.model.device)
            missing = [prompt for prompt, is_ in zip(group, wanted, strict=True) if is_]
            for prompt, draw in zip(missing, self._draws(game, missing, size), strict=True):
                self._kept(game).put(keys[prompt], draw)
            self.keys |= keys

    def _draws(self, game: Game, prompts: Sequence[str], size: int) -> Iterator[Draw]:
        """The recording of each prompt, drawn `size` pictures at once, as soon as it is whole."""
        asked = [(prompt, seed) for prompt in prompts for seed in self.seeds(game)]
        parts = [asked[i : i + size] for i in range(0, len(asked), size)]
        mine = team()
        rest: list[Draw] = []
        for start in range(0, len(parts), mine.size):
            # Each process draws a batch of its own; the last round may have fewer batches than there are processes.
            own = min(start + mine.rank, len(parts) - 1)
            drawn = mine.collected(self._draw(game, parts[own], size))
            fresh = zip(drawn, parts[start : start + mine.size], strict=False)
            whole = joined([*rest, *(cut(draw, slice(len(part))) for draw, part in fresh)])
            while len(whole.x) >= self.paths:
                yield cut(whole, slice(self.paths))
                whole = cut(whole, slice(self.paths, None))
            rest = [whole] if len(whole.x) else []

    def _draw(self, game: Game, part: Sequence[tuple[str, int]], size: int) -> Draw:
        """These pictures, and the last of them again and again up to `size`."""
        full = [*part, *[part[-1]] * (size - len(part))]
        cond = game.model.encode([prompt for prompt, _ in full])
        seeds = [seed for _, seed in full]
        return game.model.sample(
            cond, game.uncond, seeds, steps=self.steps, guidance=self.guidance, record=True, sampler=self.sampler
        )

    def _key(self, game: Game, prompt: str, size: int) -> str:
        """The hash of all that a recording depends on."""
        model = game.model
        facts = {
            "prompt": prompt,
            "seeds": self.seeds(game),
            "together": size,
            "draw": [self.steps, self.guidance, self.sampler, str(model.scheduler(self.sampler).config)],
            "base": game.base,
            "numbers": [str(model.dtype), str(model.compute), model.device.type, list(model.latent_shape)],
            "versions": versions(),
        }
        return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()


def _traced(game: Game, steps: int, n: int) -> int:
    """Bytes of what is recorded of n drawings."""
    return len(COLUMNS) * steps * n * prod(game.model.latent_shape) * game.model.dtype.itemsize
