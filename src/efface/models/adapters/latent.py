"""What all latent diffusion models share, whatever their denoiser and text encoders: autoencoder, scheduler, files."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...files import new_folder
from ...plurals import write_count
from ..architectures import GROUPS
from ..base import Model
from ..cond import TextMap
from ..fingerprint import to_bytes
from ..flow_schedule import Spacing, copy_flow_scheduler, shift_by_size
from ..opening.pipeline import read_side
from ..opening.text import spell_out
from ..opening.unused import copy_unused
from ..pictures import decode_or_keep, join_pictures, round_to_pictures
from ..schedule import copy_scheduler, read_levels, read_space
from ..trajectory import Defaults, Sampler

SLICE = 2 * 512**2
"""Number of pixels that the autoencoder processes at once: about 1.6 GB of activations in fp32."""
TILED = 1280**2
"""Number of pixels of a picture above which the autoencoder processes it in tiles, whose seams are blended."""
CROSS = re.compile(r"\.attn2\.to_[kv]\.weight$")


def count(tokenizer: Any, text: str) -> int:
    """The number of tokens of a text before any cut, with those that a tokenizer puts around it."""
    return len(tokenizer(text, truncation=False)["input_ids"])


class LatentDiffusion(Model):
    """A pipeline of denoiser, KL autoencoder and text encoders; its parts are used and never changed."""

    network: Any
    sequence: ClassVar[str]
    """The name of the text encoders' output in conditions."""
    shifts: ClassVar[bool] = True
    """Whether the architecture's pipeline adds the autoencoder's `shift_factor` to latents before it decodes them."""
    pixels_packed: ClassVar[int] = 1
    """Number of latent pixels that the network reads as the channels of one position."""

    def __init__(
        self,
        pipeline: Any,
        name: str,
        encoders: Sequence[str],
        defaults: Defaults,
        words: Sequence[str],
        compute: torch.dtype | None,
    ) -> None:
        parts = {part: getattr(pipeline, part) for part in (self.denoiser, *encoders, "vae")}
        if missing := [part for part, module in parts.items() if module is None]:
            raise ValueError(
                f"{name} has no {', '.join(missing)}; a pipeline with {', '.join(parts)} would have worked"
            )
        for module in parts.values():
            module.eval()
        self.pipeline, self.vae = pipeline, parts.pop("vae")
        self.tokenizer: Any = spell_out(pipeline.tokenizer, pipeline)
        self.max_tokens: int = pipeline.tokenizer.model_max_length
        self.text_encoders: list[Any] = [parts[encoder] for encoder in encoders]
        Model.__init__(self, parts)
        self.name, self.defaults, self.own_words, self.compute = name, defaults, tuple(words), compute
        self.device, self.dtype = self.network.device, self.network.dtype
        channels, latent = self.network.config.in_channels // self.pixels_packed, self.vae_channels
        if channels != latent:
            raise ValueError(f"{name} reads {channels} channels, a plain text-to-image model reads {latent}")
        side = self.read_side()
        self.latent_shape = (channels, side, side)
        self.resolution = side * 2 ** (self.vae_levels - 1)
        self.space = read_space(pipeline.scheduler, name)
        self._check_scheduler()
        self.levels = read_levels(pipeline.scheduler, name)

    def _check_scheduler(self) -> None:
        """ValueError where the scheduler goes by other states than the network was trained on."""
        flow = self.architecture in GROUPS["flow"]
        if flow == (self.space == "flow"):
            return
        given = type(self.pipeline.scheduler).__name__
        trained, fits = ("as a flow", "FlowMatchEulerDiscreteScheduler") if flow else ("on noise or v", "DDIMScheduler")
        raise ValueError(
            f"the {self.denoiser} of {self.name} was trained {trained}, and its scheduler ({given}) takes it for "
            f"{'one of noise' if flow else 'a flow'}; give it the scheduler that it came with, or {fits}"
        )

    def hash_decoder(self) -> str:
        config = self.vae.config
        named = ("latents_mean", "latents_std", "shift_factor")
        moments = [config.get(name) for name in named if config.get(name) not in (None, 0.0)]
        digest = hashlib.blake2b("".join(map(str, [config.get("scaling_factor"), *moments])).encode(), digest_size=16)
        for name, tensor in sorted(self.vae.state_dict().items()):
            digest.update(name.encode() + to_bytes(tensor, torch.float32))
        return digest.hexdigest()

    @property
    def vae_channels(self) -> int:
        """Number of channels of the latent picture as the autoencoder gives it."""
        return self.vae.config.latent_channels

    @property
    def vae_levels(self) -> int:
        """Number of resolutions in the autoencoder; each is half the one before."""
        return len(self.vae.config.block_out_channels)

    def read_side(self) -> int:
        """Latent pixels a side. Raises ValueError where the latent picture is not square."""
        side = read_side(size := self.network.config.sample_size)
        if side is None:
            raise ValueError(f"{self.name} draws at sample_size {size!r}; one number would have worked")
        return side

    def build_scheduler(self, sampler: Sampler = "own") -> Any:
        own = self.pipeline.scheduler
        return (
            copy_flow_scheduler(own, sampler, self.build_spacing)
            if self.space == "flow"
            else copy_scheduler(own, sampler)
        )

    def build_spacing(self, steps: int) -> Spacing:
        """The noise levels of so many steps of a flow; a dynamic shift depends on the picture's number of tokens."""
        config = self.pipeline.scheduler.config
        side = self.latent_shape[1] // self.network.config.patch_size
        return Spacing(mu=shift_by_size(config, side * side)) if config.get("use_dynamic_shifting") else Spacing()

    @property
    def _shift(self) -> float:
        """The number that is subtracted from the autoencoder's latents before they are scaled."""
        return self.vae.config.get("shift_factor") or 0.0 if self.shifts else 0.0

    def _tokenize(self, tokenizer: Any, texts: Sequence[str], limit: int = 0) -> Any:
        """Token ids and attention mask, each [n, length]; warns of prompts that are cut.

        `limit` is the length; 0 is `max_tokens`.
        """
        limit = limit or self.max_tokens
        tokens = tokenizer(list(texts), padding="max_length", max_length=limit, truncation=True, return_tensors="pt")
        full = tokenizer(list(texts), truncation=False)["input_ids"]
        if long := [text for text, ids in zip(texts, full, strict=True) if len(ids) > limit]:
            warnings.warn(
                f"{write_count(len(long), 'prompt exceeds', 'prompts exceed')} {limit} tokens and "
                f"{'loses its' if len(long) == 1 else 'lose their'} end, first {long[0]!r}",
                stacklevel=4,
            )
        return tokens.to(self.device, non_blocking=True)

    def count_tokens(self, text: str) -> Mapping[str, tuple[int, int]]:
        return {"text_encoder": (count(self.tokenizer, text), self.max_tokens)}

    @torch.no_grad()
    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """Takes the mode of the autoencoder's posterior, not a sample, so that a picture has one set of latents."""
        shifted = self._encode_modes(pictures) - self._shift
        return (shifted * self.vae.config.scaling_factor).to(self.state_dtype)

    def _encode_modes(self, pictures: Tensor) -> Tensor:
        """The posterior modes, in fp32, of uint8 pictures [n, 3, ..., h, w]."""
        modes = []
        for part in pictures.split(self._slice):
            pixels = part.to(self.device, self.vae.dtype).div(127.5).sub(1)
            with self._autoencoding():
                modes.append(self._find_posterior_mode(pixels))
        return torch.cat(modes).float()

    def _find_posterior_mode(self, pixels: Tensor) -> Tensor:
        encoded = self.vae.encode(pixels)
        # A tiny autoencoder gives latents directly, without a distribution.
        return encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents

    def _decode_pictures(self, z: Tensor) -> Tensor:
        """Decodes the decoder's inputs to uint8 pictures [n, 3, h, w] on the CPU."""
        return join_pictures([decode_or_keep(self._decode_slice, part) for part in z.split(self._slice)])

    def _decode_slice(self, z: Tensor) -> Tensor:
        with self._autoencoding():
            pictures = self.vae.decode(z.to(self.vae.dtype), return_dict=False)[0]
        pictures = pictures[:, :, 0] if pictures.dim() == 5 else pictures  # one frame of a video
        return round_to_pictures(pictures, (pictures / 2 + 0.5).clamp(0, 1).float().cpu())

    @property
    def _slice(self) -> int:
        """Number of pictures that the autoencoder processes at once: 128 of 64 pixels a side, 2 of 512, 1 of 1024."""
        return max(1, SLICE // self.resolution**2)

    @contextmanager
    def _autoencoding(self) -> Iterator[None]:
        """Lets the autoencoder compute as the network does, and process pictures above `TILED` pixels in tiles."""
        casting = torch.autocast(self.device.type, self.compute) if self.compute else nullcontext()
        tiled = self.resolution**2 > TILED and hasattr(self.vae, "enable_tiling") and not self.vae.use_tiling
        if tiled:
            self.vae.enable_tiling()
        try:
            with casting:
                yield
        finally:
            if tiled:
                self.vae.disable_tiling()

    def list_words(self, size: int) -> list[str]:
        """The word list that came with the model, or the tokenizer's most common words."""
        return list(self.own_words or self.list_tokenizer_words())[:size]

    def save_pretrained(self, folder: str | Path) -> None:
        plain = {name: tensor.contiguous() for name, tensor in self.weights.items()}
        with new_folder(folder) as made, self.swap_in(plain):
            self.pipeline.save_pretrained(made)
            if self.folder is not None:
                copy_unused(self.folder, made)

    def list_text_maps(self) -> Sequence[TextMap]:
        """The keys and values of every `attn2`, which read the text encoder's own output."""
        found = [name for name in self.weights if name.startswith(f"{self.denoiser}.") and CROSS.search(name)]
        return [TextMap("cross", name, self.sequence) for name in found]

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        return self._decode_pictures(latents / self.vae.config.scaling_factor + self._shift)
