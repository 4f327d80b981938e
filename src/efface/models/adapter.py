"""The interface that every architecture implements; `base.Model` adds what is the same for all of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..functional.losses import apply_guidance, rescale_guided
from ..functional.schedules import NoiseLevel, Space
from .cond import POOLED, Cond, TextMap, TextSpan, find_last_before_end
from .denoiser import Scale, is_plain
from .trajectory import Defaults, Sampler
from .trajectory_cache import TrajectoryCache


class Adapter(ABC):
    """Gives one interface to a network, its text encoders, its decoder and its scheduler."""

    architecture: ClassVar[str]
    """The kind of model that a method may or may not serve."""
    denoiser: ClassVar[str] = "unet"
    """The part of the pipeline that removes noise, "unet" or "transformer"; the names of its weights begin with it."""
    has_uncond: bool = True
    """Whether the prediction under the empty prompt is unconditional; distilled models have no such prediction."""
    rescales_guidance: ClassVar[bool] = False
    """Whether the architecture's pipeline takes `guidance_rescale`."""
    guidance_rescale: float = 0.0
    """How far guided predictions are rescaled to the standard deviation of the conditional prediction, 0 to 1."""
    text_sources: ClassVar[Mapping[str, tuple[str, ...]]] = {"tokens": ("text_encoder",)}
    """Which text encoders, named as in the pipeline, produce the "tokens" and the "pooled" embedding of a prompt."""
    searched: ClassVar[tuple[str, ...]] = ()
    """The text encoders whose token embeddings `embed` returns and `encode_embedded` takes."""
    name: str
    pipeline: Any
    """The diffusers pipeline; its parts are used and never changed."""
    folder: Path | None = None
    """The diffusers folder that it was opened from; `save_pretrained` copies its parts that are never called here."""
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
    """Keeps trajectories that were drawn with the untouched model."""
    network: nn.Module
    """The denoiser itself."""
    parked: bool
    """Whether text encoders and decoder stay on the CPU and are moved to the device for each call only."""
    quantised: int = 0
    """Number of bits that hold each weight of the denoiser's linear layers; 0 where they are not quantised."""
    gradient_rows: int
    """Number of rows that an attack differentiates at once, chosen by the memory planner; 0 takes all."""
    on_step: Callable[[int, int], None] | None = None
    """Is called before each sampling step with the step's number and the number of steps; None for no call."""
    steady: set[int] | None
    """The batch sizes that a compiled network was compiled for; None where it is not compiled."""

    def read_own_call(self, call: Any) -> None:  # noqa: B027
        """Takes over what an exported folder says of its pipeline's call (`describe_use`); most models need nothing."""

    def describe_use(self) -> dict[str, Any]:
        """The architecture, and what a reader of the model's files has to be told.

        "absent" lists parts that the pipeline lacks and that `from_pretrained` has to be given as None; "call" has the
        arguments, beyond its defaults, that the pipeline's call needs in order to draw as the model was trained.
        """
        parts, optional = getattr(self.pipeline, "components", {}), getattr(self.pipeline, "_optional_components", ())
        absent = [name for name, part in parts.items() if part is None and name not in optional]
        return {"architecture": self.architecture, "absent": absent, "call": {}}

    @property
    def classifier_free(self) -> bool:
        """Whether sampling combines two predictions, so that the one that it is guided away from can be exchanged."""
        return self.has_uncond

    @property
    def suggested(self) -> Mapping[str, Any]:
        """Arguments that fit this architecture better than the methods' defaults, which were chosen for epsilon models.

        A flow's errors are measured as velocities; a distilled model is drawn without guidance, in its own few steps.
        """
        space = {"space": "flow"} if self.space == "flow" else {}
        return space if self.has_uncond else {**space, "guidance": 1.0, "draw_steps": self.defaults.steps}

    @abstractmethod
    def _encode(self, texts: Sequence[str]) -> Cond:
        """Encodes n texts: conditions of n rows."""

    @abstractmethod
    def _with_embedding(self, cond: Cond, embedding: Tensor) -> Cond:
        """Returns one row of conditions with its embedding replaced by this one; ValueError for another shape."""

    @abstractmethod
    def _call_network(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """Calls the denoiser once: x_t [n, c, h, w], t [n], n rows of cond; gives its prediction [n, c, h, w]."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """uint8 pictures [n, 3, h, w] on the CPU from latents [n, c, h, w]."""

    @abstractmethod
    def hash_decoder(self) -> str:
        """Digest of what turns latents into pictures: no edit changes it, but every picture depends on it."""

    @abstractmethod
    def build_scheduler(self, sampler: Sampler = "own") -> Any:
        """A fresh diffusers scheduler."""

    @abstractmethod
    def list_words(self, size: int) -> list[str]:
        """Words that a search may try: at most `size`, common ones first."""

    def list_tokenizer_words(self) -> list[str]:
        """The tokenizer's whole words of three letters or more, common ones first.

        Raises ValueError where there is no tokenizer.
        """
        raise ValueError(f"{self.name} ({type(self).__name__}) has no tokenizer; give a file of words instead")

    @abstractmethod
    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the model, with whatever edit is applied, as a folder that other tools open."""

    def to_checkpoint_name(self, part: str, name: str) -> str:
        """The name of a parameter in published checkpoints, whatever the library calls it."""
        return name

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """Latents [n, c, h, w], as the network reads them, of uint8 pictures [n, 3, h, w]; the inverse of `decode`."""
        raise ValueError(f"{self.name} cannot read pictures")

    def get_embedding(self, cond: Cond) -> Tensor:
        """[n, ...]: the embedding by which a `Prompt` asks for each of these conditions."""
        return cond.embedding

    def list_text_maps(self) -> Sequence[TextMap]:
        """The weights by which the network reads a prompt; none where it reads no text."""
        return ()

    def get_text_inputs(self, cond: Cond, part: str) -> Tensor:
        """The input of this part's text maps, [n, tokens, d] or [n, d]: a part of cond, or computed from it."""
        return cond.tensors[part]

    def list_text_spans(self, part: str) -> Sequence[TextSpan]:
        """Which rows of this part's `get_text_inputs` each text encoder fills; a pooled part has one row."""
        if part == POOLED:
            return [TextSpan(lambda texts: [0] * len(texts))]
        tokenizer = getattr(self, "tokenizer", None)
        if tokenizer is None:
            raise ValueError("this model has no tokenizer to find a concept's last token; one that reads text has")
        return [TextSpan(find_last_before_end(tokenizer))]

    def guide(self, positive: Tensor, negative: Tensor, scale: Scale) -> Tensor:
        """The guided prediction [n, ...], by the architecture's own form of guidance.

        `positive` is the prediction under the prompt, `negative` the one to move away from, both [n, ...]; at scale 1
        the result is `positive`.
        """
        prediction = apply_guidance(negative, positive, scale)
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

        They hold prompts, guidance, size and the length at which prompts are cut; the caller adds steps and noise.
        """
        side = self.resolution
        rescale = {"guidance_rescale": self.guidance_rescale} if self.guidance_rescale else {}
        return {"prompt": list(prompts), "guidance_scale": guidance, "height": side, "width": side, **rescale}

    def choose_guidances(self, guidance: float | Sequence[float | None] | None, n: int) -> Scale:
        """The guidance of n pictures, where None means the model's own: one number where it is the same for all.

        Raises ValueError as `choose_guidance` does, and where there are not n of them.
        """
        if guidance is None or isinstance(guidance, int | float):
            return self.choose_guidance(guidance)
        each = [self.choose_guidance(own) for own in guidance]
        if len(each) != n:
            raise ValueError(f"one guidance for all pictures, or one for each of {n}; got {len(each)}")
        same = len(set(each)) == 1
        return each[0] if same else torch.tensor(each, device=self.device).view(-1, *[1] * len(self.latent_shape))

    def choose_guidance(self, guidance: float | None) -> float:
        """The guidance to draw with, where None means the model's own.

        Raises ValueError for what is not a finite number of at least 0, and for more than 1 where there is no
        unconditional prediction.
        """
        guidance = (self.defaults.guidance if self.has_uncond else 1.0) if guidance is None else guidance
        if not (math.isfinite(guidance) and guidance >= 0):
            raise ValueError(f"guidance must be a number of at least 0, got {guidance:g}; 1 draws without guidance")
        if guidance > 1 and not self.has_uncond:
            raise ValueError(f"{self.name} has no unconditional prediction to guide by; draw it with guidance 1")
        return guidance

    def pack(self, x: Tensor) -> Tensor:
        """Lays states [n, c, h, w] out as the network reads them; `unpack` does the inverse with its output."""
        return x

    def unpack(self, out: Tensor) -> Tensor:
        """Turns the network's output for packed states into predictions [n, c, h, w]."""
        return out

    # Tokens and their embeddings; only models with CLIP text encoders have them.

    def count_tokens(self, text: str) -> Mapping[str, tuple[int, int]]:
        """For each text encoder: the number of tokens of this text, with start and end, and the most that it reads."""
        return {}

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token ids [n, length] of n texts: start, words, end, padding.

        Raises ValueError where the model has no text encoder that takes token embeddings.
        """
        raise self._explain_wordless()

    def detokenize(self, ids: Tensor) -> str:
        """The text of token ids [length], without start, end and padding. Raises ValueError as `tokenize` does."""
        raise self._explain_wordless()

    def get_embedding_table(self) -> Tensor:
        """The embeddings [vocabulary, d] of all tokens, from the weights in place; two encoders' are concatenated.

        Raises ValueError as `tokenize` does.
        """
        raise self._explain_wordless()

    def embed(self, ids: Tensor) -> Tensor:
        """The embeddings [..., d] of these token ids, without building the whole table.

        Raises ValueError as `tokenize` does.
        """
        raise self._explain_wordless()

    def encode_embedded(self, embeddings: Tensor, texts: Sequence[str] = ()) -> Cond:
        """Conditions for n prompts given as the embeddings of all their tokens, [n, length, d], which get a gradient.

        `embed(tokenize(texts))` gives the conditions of the texts themselves; nothing is cached. `texts` are for text
        encoders that take no embeddings, one for each prompt, by default "". Raises ValueError as `tokenize` does, and
        for embeddings of another shape.
        """
        raise self._explain_wordless()

    def _explain_wordless(self) -> ValueError:
        return ValueError(
            f"{self.name} ({type(self).__name__}) has no text encoder that token embeddings could be given to; "
            "StableDiffusion (1.x and 2.x) and StableDiffusionXL have"
        )
