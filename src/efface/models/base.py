"""What every model looks like from outside, and the one sampling loop.

A model is never changed in place: weights are swapped in by reference (`bound`) and the very same tensors are put back,
so that leaving is exact and the frozen model costs no second copy.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..concept import Prompt
from ..functional.schedules import Space
from .cond import Cond
from .draw import Defaults, Draw, drawn
from .guide import Guide, Plain

Sampler = Literal["own", "ddim"]
ENCODINGS_KEPT = 1024
CASTS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Model(ABC):
    """A text-to-image denoiser behind a face that hides its architecture."""

    architecture: ClassVar[str]
    """The kind of model that a method may or may not serve."""
    name: str
    device: torch.device
    dtype: torch.dtype
    compute: torch.dtype | None
    """Autocast to this dtype inside the network; None computes in the weights' own."""
    defaults: Defaults
    space: Space
    """What the network predicts."""
    resolution: int
    """Pixels a side."""
    latent_shape: tuple[int, int, int]
    alphas_bar: Tensor
    """[T]: cumulative alpha products of the training schedule, fp64 on the CPU."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._slots = {
            f"{part}.{self.checkpoint_name(part, name)}": _slot(module, name)
            for part, module in modules.items()
            for name, _ in module.named_parameters()
        }
        self._encoded: dict[str, Cond] = {}
        self._guide: Guide | None = None
        self._fingerprint: dict[str, str] | None = None

    # What an adapter answers.

    @abstractmethod
    def _encode(self, texts: Sequence[str]) -> Cond:
        """The text encoder's output for these prompts."""

    @abstractmethod
    def _with_embedding(self, cond: Cond, embedding: Tensor) -> Cond:
        """One row of conditions whose embedding is replaced."""

    def _encode_behind(self, texts: Sequence[str], prefix: Tensor) -> Cond:
        """As `_encode`, with token embeddings [n, k, d] before the words."""
        raise ValueError(f"{self.name} has no text encoder that token embeddings could be given to")

    def latents(self, pictures: Tensor) -> Tensor:
        """Latents [n, c, h, w], as the network reads them, of uint8 pictures [n, 3, h, w]; the inverse of `decode`."""
        raise ValueError(f"{self.name} cannot read pictures")

    @abstractmethod
    def _network(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """One call of the denoiser: x_t [n, c, h, w], t [n], n rows of cond."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """uint8 pictures [n, 3, h, w] on the CPU from latents [n, c, h, w]."""

    @abstractmethod
    def decoder_digest(self) -> str:
        """Digest of whatever turns latents into pictures: no edit touches it, but every picture depends on it."""

    @abstractmethod
    def scheduler(self, sampler: Sampler = "own") -> Any:
        """A fresh diffusers scheduler."""

    @abstractmethod
    def vocabulary(self, size: int) -> list[str]:
        """Words that a search may try: at most `size`, common ones first."""

    @abstractmethod
    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the model, with whatever edit is applied, as a folder that other tools open."""

    def checkpoint_name(self, part: str, name: str) -> str:
        """The name of a parameter in published checkpoints, whatever the library calls it."""
        return name

    # Weights.

    @property
    def weights(self) -> dict[str, Tensor]:
        """The parameters now in place, by checkpoint name."""
        return {name: owner._parameters[leaf] for name, (owner, leaf) in self._slots.items()}  # type: ignore[misc]

    @contextmanager
    def bound(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Within, the named weights are these tensors (swapped by reference); after, the very ones there before.

        Never enter or leave between a student's forward and its backward where activations are recomputed.
        """
        if unknown := sorted(set(tensors) - set(self._slots)):
            raise KeyError(f"{self.name} has no weight {unknown[0]!r} ({len(unknown)} unknown names)")
        before = {name: self._slots[name][0]._parameters[self._slots[name][1]] for name in tensors}
        encoded = self._encoded
        if any(not name.startswith("unet.") for name in tensors):
            self._encoded = {}
        try:
            for name, tensor in tensors.items():
                owner, leaf = self._slots[name]
                owner._parameters[leaf] = tensor  # type: ignore[assignment]
            yield
        finally:
            for name, tensor in before.items():
                owner, leaf = self._slots[name]
                owner._parameters[leaf] = tensor
            self._encoded = encoded

    @contextmanager
    def guided_by(self, guide: Guide) -> Iterator[None]:
        """Within, the guide steers `sample` and `images`; `predict` stays the network's own. ValueError for two."""
        if self._guide is not None:
            raise ValueError(f"{self.name} is under the guide {type(self._guide).__name__} already; leave that first")
        guide.check(self)
        encoded = self._encoded
        self._guide, self._encoded = guide, {}
        try:
            yield
        finally:
            self._guide, self._encoded = None, encoded

    def fingerprint(self) -> dict[str, str]:
        """Digests of the base's fp32, fp16 and bf16 casts: equal in one of them means the same base at some dtype.

        Taken once, from the weights in place at the first call.
        """
        if self._fingerprint is None:
            digests = {cast: hashlib.blake2b(digest_size=16) for cast in CASTS}
            for name, tensor in sorted(self.weights.items()):
                for cast, dtype in CASTS.items():
                    data = tensor.detach().to("cpu", dtype).contiguous().flatten().view(torch.uint8).numpy().tobytes()
                    digests[cast].update(f"{name}{tuple(tensor.shape)}".encode())
                    digests[cast].update(data)
            self._fingerprint = {cast: digest.hexdigest() for cast, digest in digests.items()}
        return dict(self._fingerprint)

    # Predictions.

    @torch.no_grad()
    def encode(self, prompts: Sequence[str | Prompt]) -> Cond:
        """Conditions for n prompts; each text is encoded once for each state of the text encoder."""
        asked = [Prompt(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
        known = dict(self._encoded)
        new = [text for text in dict.fromkeys(prompt.text for prompt in asked) if text not in known]
        for start in range(0, len(new), 64):
            chunk = new[start : start + 64]
            cond = self._noted(chunk, self._encode(chunk))
            known |= {text: cond[[i]] for i, text in enumerate(chunk)}
        rows = [(known[prompt.text], prompt.embedding) for prompt in asked]
        self._encoded.clear()
        self._encoded.update(list(known.items())[-ENCODINGS_KEPT:])
        return Cond.cat([row if e is None else self._noted([""], self._with_embedding(row, e)) for row, e in rows])

    def _noted(self, texts: Sequence[str], cond: Cond) -> Cond:
        """The conditions with the guide's notes on their texts, where there is a guide."""
        return self._guide.read(self, texts, cond) if self._guide else cond

    def read(self, texts: Sequence[str], prefix: Tensor | None = None) -> Cond:
        """Conditions for n texts with a gradient to the text encoder's weights, never cached.

        `prefix` [n, k, d] are token embeddings put before the words, which move k places on; it gets a gradient too.
        """
        return self._encode(texts) if prefix is None else self._encode_behind(texts, prefix)

    def predict(self, x_t: Tensor, t: Tensor | float, *conds: Cond) -> tuple[Tensor, ...]:
        """The prediction [n, ...] under each condition, in the model's own space, from one batched call.

        x_t is [n, c, h, w], t is [n] or a number; each cond has n rows, or one for all.
        """
        n, k = len(x_t), len(conds)
        times = torch.as_tensor(t, device=self.device).expand(n)
        cond = Cond.cat([c.expand(n) for c in conds])
        autocast = torch.autocast(self.device.type, self.compute) if self.compute else nullcontext()
        with autocast:
            out = self._network(x_t.repeat(k, *[1] * (x_t.dim() - 1)), times.repeat(k), cond)
        return out.to(x_t.dtype).chunk(k)

    def alpha_bar(self, t: Tensor) -> Tensor:
        """Cumulative alpha product at timesteps t [n], which may fall between two: then noise levels interpolate."""
        sigmas = ((1 - self.alphas_bar) / self.alphas_bar).sqrt()
        low = t.detach().double().cpu().clamp(0, len(sigmas) - 1)
        floor, share = low.floor().long(), low.frac()
        sigma = sigmas[floor] * (1 - share) + sigmas[(floor + 1).clamp(max=len(sigmas) - 1)] * share
        return (1 / (1 + sigma.square())).to(self.device, torch.float32)

    # Sampling.

    @torch.no_grad()
    def sample(
        self,
        cond: Cond,
        uncond: Cond,
        seeds: Sequence[int],
        *,
        steps: int | None = None,
        guidance: float | None = None,
        until: int | None = None,
        record: bool = False,
        sampler: Sampler = "own",
    ) -> Draw:
        """THE loop: n pictures at once, one condition row and one seed each.

        Noise is drawn on the CPU per seed, so that a seed means the same picture at any batch size. `until=k` stops
        when the latents are exactly at the k-th timestep, before the network sees them. Guidance 1 is the plain
        conditional model and costs no second prediction unless recorded.
        """
        guidance = self.defaults.guidance if guidance is None else guidance
        scheduler = self.scheduler(sampler)
        scheduler.set_timesteps(self.defaults.steps if steps is None else steps, device=self.device)
        rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = torch.cat([torch.randn((1, *self.latent_shape), generator=rng) for rng in rngs])
        x = noise.to(self.device, self.dtype) * scheduler.init_noise_sigma
        extra = {"generator": rngs} if "generator" in inspect.signature(scheduler.step).parameters else {}
        cond, uncond = cond.expand(len(x)), uncond.expand(len(x))
        walk = self._guide.begin(self, cond, uncond, guidance) if self._guide else Plain(cond, uncond, guidance)
        always = [uncond, cond] if record else []
        visited: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for i, t in enumerate(scheduler.timesteps):
            x_t = scheduler.scale_model_input(x, t)
            if until == i:
                return drawn(x_t, visited)
            asked = list(dict.fromkeys([*always, *walk.conds(i)]))
            said = dict(zip(asked, self.predict(x_t, t, *asked), strict=True))
            out = walk.combine(i, x_t, t, said)
            if record:
                visited.append((t, x_t, said[cond], said[uncond]))
            x = scheduler.step(out, t, x, **extra, return_dict=False)[0]
        return drawn(x, visited)

    def timesteps(self, steps: int, sampler: Sampler = "own") -> Tensor:
        """The timesteps that `sample` visits, noisiest first."""
        scheduler = self.scheduler(sampler)
        scheduler.set_timesteps(steps)
        return scheduler.timesteps

    def images(
        self,
        prompts: Sequence[str | Prompt],
        seeds: Sequence[int],
        *,
        steps: int | None = None,
        guidance: float | None = None,
        batch: int = 64,
        progress: Callable[..., None] | None = None,
    ) -> Tensor:
        """uint8 pictures [n, 3, h, w] on the CPU, one for each pair of prompt and seed."""
        if len(prompts) != len(seeds) or not prompts:
            raise ValueError(f"one seed a prompt, at least one: got {len(prompts)} prompts and {len(seeds)} seeds")
        pictures = []
        for start in range(0, len(prompts), batch):
            part = slice(start, start + batch)
            cond = self.encode(prompts[part])
            draw = self.sample(cond, self.encode([""]), seeds[part], steps=steps, guidance=guidance)
            pictures.append(self.decode(draw.x))
            if progress:
                progress(min(start + batch, len(prompts)), len(prompts))
        return torch.cat(pictures)


def raw(tensor: Tensor, dtype: torch.dtype) -> bytes:
    """The bytes of a tensor at this dtype."""
    return tensor.detach().to("cpu", dtype).contiguous().view(torch.uint8).numpy().tobytes()


def fresh(scheduler: Any) -> Any:
    """A scheduler with the same configuration and none of the state."""
    return copy.deepcopy(scheduler)


def _slot(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return module.get_submodule(path), leaf
