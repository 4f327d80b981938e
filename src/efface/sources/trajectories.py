"""States on guided trajectories under a row's own condition, the frozen model's or the student's.

The papers draw a fresh partial trajectory of the model in training for every update (ESD's and EAP's code: DDIM, start
guidance 3). The state here is exactly at the timestep that it is scored at, which the original code misses by 40 to 60
training steps. A trajectory of the *frozen* model has already computed eps(c) and eps("") at every state it visits, so
one batched draw, kept, answers the teacher's part of many updates for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch

from ..game import Game, OnTrajectories, Rows, Source, Turn
from ..models.base import Draw
from ..models.cond import Cond


def trajectories(method: OnTrajectories, paths: int) -> Source:
    """The source that the method's settings name; `paths` trajectories a prompt where they are stored."""
    if method.source == "student":
        return Student(method.draw_steps, method.guidance)
    if method.source == "frozen":
        return Frozen(method.draw_steps, method.guidance, paths, method.refresh)
    raise ValueError(f"no source {method.source!r}; there are student, frozen")


@final
class Student(Source):
    """A fresh partial trajectory of the model in training, for every row of every turn."""

    def __init__(self, steps: int, guidance: float) -> None:
        self.steps, self.guidance = steps, guidance

    def rows(self, game: Game, turn: Turn, prompts: Sequence[str], cond: Cond) -> Rows:
        """One batched draw as far as the row that goes furthest; the others were picked up on the way."""
        with game.update.bound():
            draw = game.model.sample(
                cond.detach(),
                game.uncond,
                turn.noise,
                steps=self.steps,
                guidance=self.guidance,
                until=max(turn.points),
                record=min(turn.points) < max(turn.points),
                sampler="ddim",
            )
        t = game.model.timesteps(self.steps, "ddim").to(game.model.device)[list(turn.points)]
        last = max(turn.points)
        states = [draw.x[i] if k == last else draw.states[k, i] for i, k in enumerate(turn.points)]
        return Rows(torch.stack(states), t)


@final
class Frozen(Source):
    """A stored draw of the frozen model: `paths` trajectories a prompt, drawn when first asked for."""

    def __init__(self, steps: int, guidance: float, paths: int, refresh: int = 0) -> None:
        self.steps, self.guidance, self.paths, self.refresh = steps, guidance, paths, refresh
        self.epoch = 0
        self.store: dict[str, Draw] = {}

    def rows(self, game: Game, turn: Turn, prompts: Sequence[str], cond: Cond) -> Rows:
        """Rows of the store; their `known` holds the frozen predictions under the row's condition and under ""."""
        epoch = turn.index // self.refresh if self.refresh else 0
        if epoch != self.epoch:
            self.epoch, self.store = epoch, {}
        self._fill(game, [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.store])
        picks = [(self.store[p], k, s % self.paths) for p, k, s in zip(prompts, turn.points, turn.noise, strict=True)]
        columns = [
            torch.stack([column(draw)[k, path] for draw, k, path in picks])
            for column in (lambda d: d.states, lambda d: d.eps_c, lambda d: d.eps_0)
        ]
        t = torch.stack([draw.t[k] for draw, k, _ in picks])
        return Rows(columns[0], t, {"eps_c": columns[1], "eps_0": columns[2]})

    def seeds(self, game: Game) -> list[int]:
        """Of the stored start noises: far from the small seeds that pictures are drawn and judged with."""
        first = 2**40 + game.settings["seed"] * 1_000_003 + self.epoch * self.paths
        return [first + i for i in range(self.paths)]

    def _fill(self, game: Game, prompts: Sequence[str]) -> None:
        """Draws all trajectories of new prompts together, at most 64 at once."""
        seeds = self.seeds(game)
        together = max(1, 64 // self.paths)
        for start in range(0, len(prompts), together):
            chunk = prompts[start : start + together]
            cond = game.model.encode([prompt for prompt in chunk for _ in seeds])
            draw = game.model.sample(
                cond,
                game.uncond,
                seeds * len(chunk),
                steps=self.steps,
                guidance=self.guidance,
                record=True,
                sampler="ddim",
            )
            for i, prompt in enumerate(chunk):
                part = slice(i * self.paths, (i + 1) * self.paths)
                self.store[prompt] = Draw(
                    draw.x[part], draw.t, draw.states[:, part], draw.eps_c[:, part], draw.eps_0[:, part]
                )
