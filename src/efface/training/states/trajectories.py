"""States on guided trajectories under a row's own condition, the teacher's or the student's.

The papers draw a fresh partial trajectory of the model in training for every update (ESD's and EAP's code: DDIM, start
guidance 3). The state here is exactly at the timestep at which the loss is computed, which the original code misses by
40 to 60 training steps. A trajectory of the *teacher* has already computed eps(c) and eps("") at every state, so that
one batched draw, once stored, answers the teacher's queries of many updates without a pass. A third way is a recording
of the student that is drawn anew every few steps: its states are those of the student a few steps ago, in large
batches.

Drawings are made in batches of one size, which are padded where there are few prompts: a row's last bits then depend on
its prompt, its seed and that size alone, which are all part of its key in the cache. So a resumed run, a run that finds
the recordings of another, and several processes that share the drawing all train on the same numbers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from math import prod
from typing import Any, final

import torch
from torch import Tensor

from ...edits.provenance import read_versions
from ...files.digests import hash_json
from ...models.cond import Cond
from ...models.trajectory import Draw, Sampler
from ...models.trajectory_cache import COLUMNS, TrajectoryCache, take_picture
from ..distributed import find_process_group
from ..interfaces import Context, MemoryFootprint, Source, States, Step
from ..seeds import find_first_seed

Asked = tuple[str, int]
"""A trajectory, given by its prompt and the seed of its start noise."""


@final
class Student(Source):
    """A fresh partial trajectory of the model in training, for every row of every step."""

    def __init__(self, steps: int, guidance: float, sampler: Sampler = "ddim") -> None:
        self.steps, self.guidance = steps, guidance
        self.sampler: Sampler = sampler

    def sample_states(self, context: Context, step: Step, prompts: Sequence[str], cond: Cond) -> States:
        """Draws one batch to the latest point of any row, and takes the states of the other rows on the way."""
        cond = cond.detach().expand(len(step.points))
        with torch.no_grad(), context.update.swapped_in():
            states = find_process_group().shard_apply(
                lambda own: self._draw(context, step, cond, own), len(step.points)
            )
        t = context.model.list_timesteps(self.steps, self.sampler)[list(step.points)]
        return States(states, t)

    def estimate_footprint(self, context: Context) -> MemoryFootprint:
        n = context.config.batch
        return MemoryFootprint(n, _count_trace_bytes(context, self.steps, n) if n > 1 else 0)

    def _draw(self, context: Context, step: Step, cond: Cond, own: slice) -> Tensor:
        """Draws the states [m, c, h, w] of some of the step's rows."""
        points = step.points[own]
        last = max(points)
        draw = context.model.sample(
            cond[own],
            context.uncond,
            step.noise[own],
            steps=self.steps,
            guidance=self.guidance,
            until=last,
            record=min(points) < last,
            sampler=self.sampler,
        )
        return torch.stack([draw.x[i] if k == last else draw.states[k, i] for i, k in enumerate(points)])


class Recorded(Source):
    """`paths` whole trajectories of each prompt, drawn when first needed and again every `refresh` steps (0: never)."""

    def __init__(self, steps: int, guidance: float, paths: int, refresh: int = 0, sampler: Sampler = "ddim") -> None:
        self.steps, self.guidance, self.paths, self.refresh = steps, guidance, paths, refresh
        self.sampler: Sampler = sampler
        self.epoch = 0
        self.expected: dict[str, None] = {}
        self.found: dict[Asked, Any] = {}

    def expect(self, prompts: Sequence[str]) -> None:
        """Announces prompts whose trajectories are drawn together when the first of them is needed."""
        self.expected |= dict.fromkeys(prompts)

    def sample_states(self, context: Context, step: Step, prompts: Sequence[str], cond: Cond) -> States:
        """Recorded states, each on the trajectory and at the point that the step's random choices give."""
        if (epoch := step.index // self.refresh if self.refresh else 0) != self.epoch:
            self.free(context)
            self.epoch, self.found = epoch, {}
        seeds = self.list_seeds(context)
        asked = [(prompt, seeds[noise % self.paths]) for prompt, noise in zip(prompts, step.noise, strict=True)]
        missing = dict.fromkeys(prompt for prompt, seed in asked if (prompt, seed) not in self.found)
        alone = [[prompt] for prompt in missing if prompt not in self.expected]
        together = [list(self.expected)] if len(alone) < len(missing) else []
        for group in together + alone:
            self.record(context, [(prompt, seed) for prompt in group for seed in seeds])
        return self.read(context, asked, step.points)

    @abstractmethod
    def record(self, context: Context, asked: Sequence[Asked]) -> None:
        """Draws those of these trajectories that are not stored, and notes all in `found`."""

    @abstractmethod
    def read(self, context: Context, asked: Sequence[Asked], points: Sequence[int]) -> States:
        """The states of these trajectories, each at its point."""

    def free(self, context: Context) -> None:
        """Frees the recordings, before they are drawn anew."""

    def list_seeds(self, context: Context) -> list[int]:
        """Seeds of the start noises, far from the small seeds of evaluations."""
        first = find_first_seed("trajectories", context.config.seed) + self.epoch * self.paths
        return [first + i for i in range(self.paths)]

    def draw_in_parts(self, context: Context, asked: Sequence[Asked], size: int) -> Iterator[Draw]:
        """Draws these trajectories, `size` at once, and gives the recording of each."""
        mine = find_process_group()
        parts = [asked[i : i + size] for i in range(0, len(asked), size)]
        for start in range(0, len(parts), mine.size):
            # Each process draws a part of its own; in the last round there may be fewer parts than processes.
            context.on_drawn(min(start * size, len(asked)), len(asked))
            part = parts[min(start + mine.rank, len(parts) - 1)]
            draws = mine.all_gather_draws(self._draw(context, [*part, *[part[-1]] * (size - len(part))]))
            for gathered, whose in zip(draws, parts[start : start + mine.size], strict=False):
                draw = Draw(
                    *(column.cpu() for column in vars(gathered).values())
                )  # as a whole, because each copy waits
                yield from (take_picture(draw, i) for i in range(len(whose)))
        context.on_drawn(len(asked), len(asked))

    def _draw(self, context: Context, asked: Sequence[Asked]) -> Draw:
        """Draws under the conditions of the base's text encoder, whichever weights draw."""
        cond, seeds = context.model.encode([prompt for prompt, _ in asked]), [seed for _, seed in asked]
        with self.drawing(context):
            return context.model.sample(
                cond,
                context.uncond,
                seeds,
                steps=self.steps,
                guidance=self.guidance,
                record=True,
                sampler=self.sampler,
            )

    def drawing(self, context: Context) -> AbstractContextManager[None]:
        """Puts the weights that draw in place inside the `with` block."""
        return nullcontext()

    def count_sizes(self, context: Context) -> tuple[int, int, int]:
        """The number of trajectories drawn at once, their bytes meanwhile, and the size of all expected states."""
        state, paths = prod(context.model.latent_shape), len(self.expected) * self.paths
        n = min(context.model.drawn_together, paths or self.paths)
        return n, _count_trace_bytes(context, self.steps, n), self.steps * paths * state


@final
class Refreshed(Recorded):
    """Recordings of the model in training, without its predictions, which are not the teacher's.

    The weights that drew them are gone when a run is resumed, so the recordings are part of the checkpoint. The first
    recordings are of the base, with which a training starts, and so hold the teacher's predictions.
    """

    def __init__(self, steps: int, guidance: float, paths: int, refresh: int, sampler: Sampler = "ddim") -> None:
        Recorded.__init__(self, steps, guidance, paths, refresh, sampler)
        self.first = Frozen(steps, guidance, paths, sampler=sampler)

    def expect(self, prompts: Sequence[str]) -> None:
        self.first.expect(prompts)
        Recorded.expect(self, prompts)

    def sample_states(self, context: Context, step: Step, prompts: Sequence[str], cond: Cond) -> States:
        if step.index < self.refresh:
            return self.first.sample_states(context, step, prompts, cond)
        return Recorded.sample_states(self, context, step, prompts, cond)

    def free(self, context: Context) -> None:
        self.first.free(context)

    def record(self, context: Context, asked: Sequence[Asked]) -> None:
        size = min(context.model.drawn_together, -(-len(asked) // find_process_group().size))
        for one, draw in zip(asked, self.draw_in_parts(context, asked, size), strict=True):
            self.found[one] = draw.states[:, 0].cpu().clone(memory_format=torch.contiguous_format)

    def read(self, context: Context, asked: Sequence[Asked], points: Sequence[int]) -> States:
        x = torch.stack([self.found[one][k] for one, k in zip(asked, points, strict=True)])
        t = context.model.list_timesteps(self.steps, self.sampler)[list(points)]
        return States(x.to(context.model.device, non_blocking=True), t)

    def drawing(self, context: Context) -> AbstractContextManager[None]:
        return context.update.swapped_in()

    def estimate_footprint(self, context: Context) -> MemoryFootprint:
        first, states = (
            self.first.estimate_footprint(context),
            self.count_sizes(context)[2] * context.model.state_dtype.itemsize,
        )
        return replace(first, image_bytes=max(0, states - context.model.recordings.bound))

    def state_dict(self) -> dict[str, Tensor]:
        return {"epoch": torch.tensor(self.epoch)} | {f"{seed} {prompt}": x for (prompt, seed), x in self.found.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.epoch = int(state["epoch"])
        pairs = ((key.partition(" "), x) for key, x in state.items() if key != "epoch")
        self.found = {(prompt, int(seed)): x for (seed, _, prompt), x in pairs}


@final
class Frozen(Recorded):
    """Recordings of the teacher, in the model's trajectory cache."""

    def __init__(self, steps: int, guidance: float, paths: int, refresh: int = 0, sampler: Sampler = "ddim") -> None:
        Recorded.__init__(self, steps, guidance, paths, refresh, sampler)
        self.private = TrajectoryCache()

    def record(self, context: Context, asked: Sequence[Asked]) -> None:
        kept, size = self._choose_cache(context), min(context.model.drawn_together, len(asked))
        facts = self._list_facts(context, size)
        keys = {one: hash_json({**facts, "prompt": one[0], "seed": one[1]}) for one in asked}
        # Files may appear or vanish between two processes' reads of a folder, and all processes must draw the same.
        wanted = find_process_group().find_any([key not in kept for key in keys.values()], context.model.device)
        missing = [one for one, is_ in zip(keys, wanted, strict=True) if is_]
        for one, draw in zip(missing, self.draw_in_parts(context, missing, size), strict=True):
            kept.put(keys[one], draw)
        self.found |= keys

    def read(self, context: Context, asked: Sequence[Asked], points: Sequence[int]) -> States:
        """Recorded states; `known` holds the teacher's predictions under the row's condition and under ""."""
        kept = self._choose_cache(context)
        rows = [kept.read_step(self.found[one], k) for one, k in zip(asked, points, strict=True)]
        t, *columns = (torch.stack(column) for column in zip(*rows, strict=True))
        x, *eps = (column.to(context.model.device, non_blocking=True) for column in columns)
        return States(x, t, dict(zip(("eps_c", "eps_0"), (e.to(x.dtype) for e in eps), strict=True)))

    def free(self, context: Context) -> None:
        for key in self.found.values():
            self._choose_cache(context).evict(key)
        self.found = {}

    def estimate_footprint(self, context: Context) -> MemoryFootprint:
        model, (n, trace_bytes, states) = context.model, self.count_sizes(context)
        each = model.state_dtype.itemsize + 2 * (model.compute or model.dtype).itemsize
        return MemoryFootprint(n, trace_bytes, states * each, drawn=len(self.expected) * self.paths)

    def _choose_cache(self, context: Context) -> TrajectoryCache:
        """The model's cache, or this source's own one while other weights than the base's are in place."""
        return context.model.recordings if context.model.untouched else self.private

    def _list_facts(self, context: Context, size: int) -> dict[str, Any]:
        """Everything on which a recording depends, apart from its prompt and its seed."""
        model = context.model
        rescale = {"guidance_rescale": model.guidance_rescale} if model.guidance_rescale else {}
        return {
            **rescale,
            "together": size,
            "draw": [self.steps, self.guidance, self.sampler, str(model.build_scheduler(self.sampler).config)],
            "base": dict(context.base),
            "numbers": [str(model.dtype), str(model.compute), model.device.type, list(model.latent_shape)],
            "versions": read_versions(),
        }


def _count_trace_bytes(context: Context, steps: int, n: int) -> int:
    """Bytes of n recordings."""
    return len(COLUMNS) * steps * n * prod(context.model.latent_shape) * context.model.state_dtype.itemsize
