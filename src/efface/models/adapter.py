"""What a model of some architecture answers; the rest of its face, the same for all, is `base.Model`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..functional.losses import guided, rescale_guided
from ..functional.schedules import NoiseLevel, Space
from .cond import POOLED, Cond, TextMap, TextSpan, last_before_end
from .denoiser import Scale, is_plain
from .trajectory import Defaults, Sampler
from .trajectory_cache import TrajectoryCache


class Adapter(ABC):
    """A network, its text encoder, its decoder and its scheduler, each behind one name."""

    architecture: ClassVar[str]
    """The kind of model that a method may or may not serve."""
    denoiser: ClassVar[str] = "unet"
    """The part of the pipeline that takes noise off, "unet" or "transformer": its weights' names begin so."""
    has_uncond: bool = True
    """Whether the empty prompt stands for no condition at all; distilled models know no such prediction."""
    rescales_guidance: ClassVar[bool] = False
    """Whether the architecture's pipeline takes `guidance_rescale`."""
    guidance_rescale: float = 0.0
    """How far the standard deviation of guided predictions is moved back to that of the conditional one, 0 to 1."""
    text_sources: ClassVar[Mapping[str, tuple[str, ...]]] = {"tokens": ("text_encoder",)}
    """The text encoders, by part of the pipeline, that each way of a prompt comes from: its "tokens", and "pooled"."""
    searched: ClassVar[tuple[str, ...]] = ()
    """The text encoders whose token embeddings `embed` and `encode_embedded` are about."""
    name: str
    pipeline: Any
    """diffusers' own; its parts are used, never changed."""
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
    levels: NoiseLevel
    """[T]: the noise levels of the training timesteps, on the CPU."""
    recordings: TrajectoryCache
    """Drawings of the untouched model that are kept."""
    network: nn.Module
    """The denoiser itself."""
    parked: bool
    """Whether text encoders and decoder lie on the CPU and come to the device for each call."""
    quantised: int = 0
    """Bits in which the denoiser's linear layers are held; 0 where they are plain."""
    gradient_rows: int
    """Rows that an attack differentiates at once, as the memory planner chose; 0 takes all."""
    on_step: Callable[[int, int], None] | None = None
    """Called with the step of a drawing that is about to be made, and of how many; None for nobody."""
    steady: set[int] | None
    """Numbers of rows that a compiled network has seen; None where it is not compiled."""

    @property
    def classifier_free(self) -> bool:
        """Whether drawing is guided by two predictions, so that what one of them is guided away from can be changed."""
        return self.has_uncond

    @property
    def suggested(self) -> Mapping[str, Any]:
        """Arguments of methods that fit this architecture better than the methods' own, which were made for noise.

        A flow's errors are measured as velocities; who has no guidance is drawn without it, in its own few steps.
        """
        space = {"space": "flow"} if self.space == "flow" else {}
        return space if self.has_uncond else {**space, "guidance": 1.0, "draw_steps": self.defaults.steps}

    @abstractmethod
    def _encode(self, texts: Sequence[str]) -> Cond:
        """The text encoder's output for these prompts."""

    @abstractmethod
    def _with_embedding(self, cond: Cond, embedding: Tensor) -> Cond:
        """One row of conditions whose embedding is replaced."""

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

    def tokenizer_words(self) -> list[str]:
        """The tokenizer's whole words of three letters or more, common ones first. ValueError where there is none."""
        raise ValueError(f"{self.name} ({type(self).__name__}) has no tokenizer; give a file of words instead")

    @abstractmethod
    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the model, with whatever edit is applied, as a folder that other tools open."""

    def checkpoint_name(self, part: str, name: str) -> str:
        """The name of a parameter in published checkpoints, whatever the library calls it."""
        return name

    def latents(self, pictures: Tensor) -> Tensor:
        """Latents [n, c, h, w], as the network reads them, of uint8 pictures [n, 3, h, w]; the inverse of `decode`."""
        raise ValueError(f"{self.name} cannot read pictures")

    def embedding_of(self, cond: Cond) -> Tensor:
        """[n, ...]: the embedding by which a `Prompt` asks for each of these conditions."""
        return cond.embedding

    def text_maps(self) -> Sequence[TextMap]:
        """The weights by which the network reads a prompt; none where it reads no text."""
        return ()

    def text_inputs(self, cond: Cond, part: str) -> Tensor:
        """What the text maps of this part read, [n, tokens, d] or [n, d]: a part of the conditions, or made of it."""
        return cond.tensors[part]

    def text_spans(self, part: str) -> Sequence[TextSpan]:
        """Which rows of `text_inputs` of this part each text encoder fills; one row of a pooled part."""
        if part == POOLED:
            return [TextSpan(lambda texts: [0] * len(texts))]
        tokenizer = getattr(self, "tokenizer", None)
        if tokenizer is None:
            raise ValueError("this model has no tokenizer to find a concept's last token with; one of texts has")
        return [TextSpan(last_before_end(tokenizer))]

    def guide(self, positive: Tensor, negative: Tensor, scale: Scale) -> Tensor:
        """The prediction [n, ...] that drawing follows, by the architecture's own form of guidance.

        From the prediction under the prompt and the one to move away from; at scale 1 it is the former.
        """
        prediction = guided(negative, positive, scale)
        if self.guidance_rescale == 0 or is_plain(scale):
            return prediction
        return rescale_guided(prediction, positive, self.guidance_rescale)

    @classmethod
    def check_guidance_rescale(cls, share: float, name: str) -> None:
        """Raises ValueError where the model of this name cannot be drawn with this `guidance_rescale`."""
        if not 0 <= share <= 1:
            raise ValueError(f"guidance_rescale must be a number from 0 to 1, got {share}")
        if share and not cls.rescales_guidance:
            raise ValueError(
                f"guidance_rescale is {share:g}, but the diffusers pipeline of {name} has no guidance rescale; "
                "leave it out (Stable Diffusion 1.x, 2.x and SDXL have it)"
            )

    def build_call(self, prompts: Sequence[str], guidance: float) -> dict[str, Any]:
        """Arguments with which the pipeline's own call draws these prompts as this model does.

        They say prompts, guidance, size and how much of a prompt is read; steps and noise are the caller's to add.
        """
        side = self.resolution
        rescale = {"guidance_rescale": self.guidance_rescale} if self.guidance_rescale else {}
        return {"prompt": list(prompts), "guidance_scale": guidance, "height": side, "width": side, **rescale}

    def choose_guidances(self, guidance: float | Sequence[float | None] | None, n: int) -> Scale:
        """The guidance to draw n pictures at, the model's own for None: one number where it is the same for all.

        ValueError as `choose_guidance`, and where there are not n of them.
        """
        if guidance is None or isinstance(guidance, int | float):
            return self.choose_guidance(guidance)
        each = [self.choose_guidance(own) for own in guidance]
        if len(each) != n:
            raise ValueError(f"one guidance for all pictures, or one for each of {n}; got {len(each)}")
        same = len(set(each)) == 1
        return each[0] if same else torch.tensor(each, device=self.device).view(-1, *[1] * len(self.latent_shape))

    def choose_guidance(self, guidance: float | None) -> float:
        """The guidance to draw at, the model's own for None.

        ValueError for what is no number, and for more than 1 where there is no prediction to be guided by.
        """
        guidance = (self.defaults.guidance if self.has_uncond else 1.0) if guidance is None else guidance
        if not math.isfinite(guidance):
            raise ValueError(f"guidance must be a finite number, got {guidance}")
        if guidance > 1 and not self.has_uncond:
            raise ValueError(f"{self.name} has no unconditional prediction to guide by; draw it with guidance 1")
        return guidance

    def pack(self, x: Tensor) -> Tensor:
        """States [n, c, h, w] as the network takes them; `unpack` is the inverse, on what it gives."""
        return x

    def unpack(self, out: Tensor) -> Tensor:
        """Predictions [n, c, h, w] of what the network gives for packed states."""
        return out

    # Words, where there are CLIP text encoders.

    def count_tokens(self, text: str) -> Mapping[str, tuple[int, int]]:
        """By text encoder: the tokens of this text, start and end among them, and the most that are read."""
        return {}

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token ids [n, length] of n texts: start, words, end, padding. ValueError where a model has none such."""
        raise self._wordless()

    def detokenize(self, ids: Tensor) -> str:
        """The text that token ids [length] spell, without start, end and padding. ValueError as `tokenize`."""
        raise self._wordless()

    def embedding_table(self) -> Tensor:
        """The embedding [vocabulary, d] of every token, by the weights in place; two encoders' side by side.

        ValueError as `tokenize`.
        """
        raise self._wordless()

    def embed(self, ids: Tensor) -> Tensor:
        """The rows of the table [..., d] of these token ids, without the whole of it. ValueError as `tokenize`."""
        raise self._wordless()

    def encode_embedded(self, embeddings: Tensor, texts: Sequence[str] = ()) -> Cond:
        """Conditions for n prompts of which every token's embedding is given, [n, length, d], with a gradient to them.

        `embed(tokenize(texts))` reads as the texts themselves do; never cached. `texts` are what text encoders read
        that take no embeddings, one for each prompt; by default "". ValueError as `tokenize`, and for other shapes.
        """
        raise self._wordless()

    def _wordless(self) -> ValueError:
        return ValueError(
            f"{self.name} ({type(self).__name__}) has no text encoder that token embeddings could be given to; "
            "StableDiffusion (1.x and 2.x) and StableDiffusionXL have"
        )
