"""The interface that all models share, and the one sampling loop.

A model is never changed in place: weights are swapped in by reference (`Model.swap_in`, weights.py) and the very same
tensors are put back, so that the model is restored exactly and needs no second copy.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..concept import Prompt
from ..functional.schedules import NoiseLevel
from ..plurals import write_count
from .cond import Cond
from .denoiser import Scale
from .fingerprint import CASTS, to_bytes
from .guider import GuidedSampling, PlainSampling, predict_with_guidance
from .offload import pad_rows
from .pictures import Output, check_output, convert_pictures, decode_or_keep, join_pictures
from .schedule import interpolate_levels
from .swappable import Swappable
from .trajectory import (
    Defaults,
    Draw,
    Sampler,
    Trace,
    build_draw,
    check_start,
    choose_image_batch,
    draw_noise,
    set_timesteps,
    unscale,
)
from .trajectory_cache import choose_draw_batch

__all__ = ["CASTS", "ENCODINGS_KEPT", "Defaults", "Draw", "Model", "Sampler", "to_bytes"]
ENCODINGS_KEPT = 1024


class Model(Swappable):
    """A text-to-image denoiser behind an interface that hides its architecture."""

    def __repr__(self) -> str:
        where = f"{str(self.dtype).removeprefix('torch.')} on {self.device}, {self.resolution} pixels a side"
        return f"<{self.name}: a model of the kind {self.architecture}, {where}>"

    # Encoding and predicting.

    @torch.no_grad()
    def encode(self, prompts: Sequence[str | Prompt]) -> Cond:
        """Conditions for n prompts; each text is encoded once for each state of the text encoder's weights."""
        asked = [Prompt(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
        known = dict(self._encoded)
        new = [text for text in dict.fromkeys(prompt.text for prompt in asked) if text not in known]
        if new and self.encoders_dropped:
            raise ValueError(
                f"{self.name} dropped its text encoders before it read {new[0]!r}; encode every prompt before "
                "drop_text_encoders(), or open the model anew"
            )
        for start in range(0, len(new), 64):
            chunk = new[start : start + 64]
            cond = self.with_guider_inputs(chunk, self._encode(chunk))
            known |= {text: cond[i : i + 1].clone() for i, text in enumerate(chunk)}
        rows = [(known[prompt.text], prompt.embedding) for prompt in asked]
        self._encoded.clear()
        self._encoded.update(list(known.items())[-ENCODINGS_KEPT:])
        return Cond.cat(
            [row if e is None else self.with_guider_inputs([""], self._with_embedding(row, e)) for row, e in rows]
        )

    def with_guider_inputs(self, texts: Sequence[str], cond: Cond) -> Cond:
        """Adds the guide's inputs for these texts ("" for an embedding) to the conditions, where there is a guide."""
        return self._guide.add_inputs(self, texts, cond) if self._guide else cond

    def encode_with_grad(self, texts: Sequence[str], prefix: Tensor | None = None, spelled: Sequence[str] = ()) -> Cond:
        """Conditions for n texts with a gradient to the text encoder's weights, never cached.

        `prefix` [n, k, d] are token embeddings that are put before the words; it gets a gradient too. A text encoder
        whose tokens are not searched (T5) reads `spelled`, n prompts with the prefix in words, or else the texts.
        """
        if prefix is None:
            return self._encode(texts)
        ids, k = self.tokenize(texts), prefix.shape[1]
        if k > (room := ids.shape[1] - 2):
            raise ValueError(f"a prefix of {k} tokens leaves no room in {room + 2}; at most {room} would have worked")
        own = self.embed(ids)
        embeddings = torch.cat([own[:, :1], prefix.to(own), own[:, 1 : room + 1 - k], own[:, -1:]], dim=1)
        return self.encode_embedded(embeddings, spelled or texts)

    def predict(self, x_t: Tensor, t: Tensor | float, *conds: Cond) -> tuple[Tensor, ...]:
        """The prediction [n, ...] under each condition, in the model's own space, from one batched call.

        x_t is [n, c, h, w], in fp32 whatever the network's dtype: it is cast before the network, and predictions are
        cast back after it. t is [n] or a number, on the CPU; each cond has n rows, or one for all.
        """
        n, k = len(x_t), len(conds)
        times = torch.as_tensor(t).expand(n).to(self.device, non_blocking=True)
        cond = Cond.cat([c.expand(n) for c in conds])
        x = x_t.to(self.dtype).repeat(k, *[1] * (x_t.dim() - 1))
        rows = (self.pack(x), times.repeat(k), cond)
        with self._casting():
            out = self.unpack(self._call_network(*(rows if self.steady is None else pad_rows(*rows, self.steady))))
        return out[: n * k].to(x_t.dtype).chunk(k)

    def predict_guided(self, x_t: Tensor, t: Tensor | float, cond: Cond) -> Tensor:
        """The prediction [n, ...] with the guide's changes in the network; cond comes from `with_guider_inputs`."""
        with self._guide.act_in_network(self, cond) if self._guide else nullcontext():
            return self.predict(x_t, t, cond)[0]

    def _casting(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, self.compute) if self.compute else nullcontext()

    def find_noise_level(self, t: Tensor) -> NoiseLevel:
        """The noise levels at timesteps t [n], which need not be whole; both on the CPU, which waits for no GPU."""
        return interpolate_levels(self.levels, t, straight=self.space == "flow")

    # Sampling.

    @property
    def state_dtype(self) -> torch.dtype:
        """The dtype of states and latents outside the network: fp32 where the network's own is narrower."""
        return torch.promote_types(self.dtype, torch.float32)

    @property
    def drawn_together(self) -> int:
        """Number of pictures that a training draws at once; it has an influence on their last bits."""
        return self.draw_batch or choose_draw_batch(self.latent_shape)

    @torch.no_grad()
    def sample(
        self,
        cond: Cond,
        uncond: Cond,
        seeds: Sequence[int],
        *,
        steps: int | None = None,
        guidance: float | Sequence[float | None] | None = None,
        until: int | None = None,
        record: bool = False,
        sampler: Sampler = "own",
        start: Tensor | None = None,
        since: int = 0,
    ) -> Draw:
        """Samples n pictures at once, with a row of conditions and a seed for each; the only sampling loop.

        Noise is drawn on the CPU for each seed, so that a seed gives the same picture at any batch size. `until=k`
        stops when the latents are at the k-th timestep, before the network reads them. Guidance up to 1 is the plain
        conditional model, as in diffusers, and costs no second prediction unless the trajectory is recorded. Each
        picture may have its own guidance.

        `start` [n, c, h, w] are states from which sampling continues at the `since`-th timestep, as `until=since` or
        `add_noise` returns them. Seeds then determine only the scheduler's own noise, where it has any, and multistep
        schedulers start without a history.
        """
        scale = self.choose_guidances(guidance, len(seeds))
        check_start(self.latent_shape, seeds, start, since, until)
        scheduler = self._prepare_scheduler(steps, sampler, since)
        rngs, noise = draw_noise(seeds, self.latent_shape)
        x = noise.to(self.device, self.state_dtype, non_blocking=True) * scheduler.init_noise_sigma
        x = x if start is None else unscale(scheduler, start.to(x), scheduler.timesteps[since])
        # As the pipelines call it: eta 0, because TCD would add noise otherwise.
        takes = inspect.signature(scheduler.step).parameters
        extra = {name: value for name, value in (("generator", rngs), ("eta", 0.0)) if name in takes}
        cond, uncond = cond.expand(len(x)), uncond.expand(len(x))
        trace = Trace(len(scheduler.timesteps) if until is None else until, since, x) if record else None
        with self._casting():  # once around all steps: its cache of cast weights ends with it
            sampling = self.begin_sampling(cond, uncond, scale)
            for i, t in enumerate(scheduler.timesteps[since:], since):
                x_t = scheduler.scale_model_input(x, t)
                if until == i:
                    return build_draw(x_t, trace)
                if self.on_step:
                    self.on_step(i, len(scheduler.timesteps))
                out, predictions = predict_with_guidance(self, sampling, i, x_t, t, [uncond, cond] if record else [])
                if trace:
                    trace.note(t, x_t, predictions[cond], predictions[uncond])
                x = scheduler.step(out, t, x, **extra, return_dict=False)[0]
        return build_draw(x, trace)

    def begin_sampling(self, cond: Cond, uncond: Cond, guidance: Scale) -> GuidedSampling:
        """Begins sampling n pictures under the guide in place, or with plain guidance; for `guided_prediction`."""
        scale = guidance.clamp(min=1) if isinstance(guidance, Tensor) else max(guidance, 1.0)
        return self._guide.begin(self, cond, uncond, scale) if self._guide else PlainSampling(self, cond, uncond, scale)

    @torch.no_grad()
    def add_noise(
        self, latents: Tensor, seeds: Sequence[int], since: int, *, steps: int | None = None, sampler: Sampler = "own"
    ) -> Tensor:
        """Adds the `since`-th timestep's noise to clean latents [n, c, h, w], a seed each: a `start` for `sample`."""
        check_start(self.latent_shape, seeds, latents, since)
        scheduler = self._prepare_scheduler(steps, sampler, since)
        t, noise = scheduler.timesteps[since], draw_noise(seeds, self.latent_shape)[1].to(latents)
        return scheduler.scale_model_input(scheduler.add_noise(latents, noise, t.expand(len(latents))), t)

    def list_timesteps(self, steps: int, sampler: Sampler = "own") -> Tensor:
        """The timesteps that `sample` visits, noisiest first, on the CPU."""
        return set_timesteps(self.build_scheduler(sampler), steps).timesteps

    def _prepare_scheduler(self, steps: int | None, sampler: Sampler, since: int) -> Any:
        return set_timesteps(self.build_scheduler(sampler), self.defaults.steps if steps is None else steps, since)

    @overload
    def images(
        self,
        prompts: str | Sequence[str | Prompt],
        seeds: int | Sequence[int] = 0,
        *,
        steps: int | None = None,
        guidance: float | Sequence[float | None] | None = None,
        batch: int = 0,
        progress: Callable[..., None] | None = None,
        start: Tensor | None = None,
        since: int = 0,
        sampler: Sampler = "own",
        output: Literal["tensor"] = "tensor",
    ) -> Tensor: ...

    @overload
    def images(
        self,
        prompts: str | Sequence[str | Prompt],
        seeds: int | Sequence[int] = 0,
        *,
        steps: int | None = None,
        guidance: float | Sequence[float | None] | None = None,
        batch: int = 0,
        progress: Callable[..., None] | None = None,
        start: Tensor | None = None,
        since: int = 0,
        sampler: Sampler = "own",
        output: Literal["np"],
    ) -> np.ndarray: ...

    @overload
    def images(
        self,
        prompts: str | Sequence[str | Prompt],
        seeds: int | Sequence[int] = 0,
        *,
        steps: int | None = None,
        guidance: float | Sequence[float | None] | None = None,
        batch: int = 0,
        progress: Callable[..., None] | None = None,
        start: Tensor | None = None,
        since: int = 0,
        sampler: Sampler = "own",
        output: Literal["pil"],
    ) -> list[Image.Image]: ...

    def images(
        self,
        prompts: str | Sequence[str | Prompt],
        seeds: int | Sequence[int] = 0,
        *,
        steps: int | None = None,
        guidance: float | Sequence[float | None] | None = None,
        batch: int = 0,
        progress: Callable[..., None] | None = None,
        start: Tensor | None = None,
        since: int = 0,
        sampler: Sampler = "own",
        output: Output = "tensor",
    ) -> Tensor | np.ndarray | list[Image.Image]:
        """Draws uint8 pictures [n, 3, h, w] on the CPU, for each pair of prompt and seed; one seed serves all prompts.

        `output="np"` gives a NumPy array uint8 [n, h, w, 3], "pil" a list of PIL images. `steps`, `guidance`,
        `sampler`, `start` and `since` are as in `sample`. `batch` pictures are drawn at once; 0 means 64 of at most 128
        pixels a side, else 4. `progress` is called with the number of pictures drawn so far, and n. Raises ValueError
        where seeds and prompts differ in number, and NoNumbers, which has all pictures, where some are NaN.
        """
        check_output(output)
        batch = batch or choose_image_batch(self.resolution)
        prompts = [prompts] if isinstance(prompts, str) else prompts
        seeds = [seeds] * len(prompts) if isinstance(seeds, int) else seeds
        if len(prompts) != len(seeds) or not prompts:
            raise ValueError(
                f"give one seed for each prompt; got {write_count(len(prompts), 'prompt')} and "
                f"{write_count(len(seeds), 'seed')}"
            )
        pictures = []
        for i in range(0, len(prompts), batch):
            part = slice(i, i + batch)
            cond, uncond, states = self.encode(prompts[part]), self.encode([""]), None if start is None else start[part]
            own = guidance if guidance is None or isinstance(guidance, int | float) else guidance[part]
            draw = self.sample(
                cond, uncond, seeds[part], steps=steps, guidance=own, sampler=sampler, start=states, since=since
            )
            pictures.append(decode_or_keep(self.decode, draw.x))
            if progress:
                progress(min(i + batch, len(prompts)), len(prompts))
        return convert_pictures(join_pictures(pictures), output)
