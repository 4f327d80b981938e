"""Class-conditional diffusion on pixels: a diffusers `UNet2DModel` whose condition is a class.

A condition is a distribution p over the classes, one-hot where a prompt names one, and the network reads the mixture of
their embeddings, sum_k p_k E_k. So a choice among classes has a gradient, and E moves like any other weight. The last
class is the null class of classifier-free guidance (Ho & Salimans, arXiv 2207.12598), the one that "" stands for.

On disk: the folder of a `DDPMPipeline`, and beside its parts `classes.json`, the names in the order of the labels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from torch import Tensor, nn
from torch.nn import functional as F

from ...catalog import find_closest
from ...concept import fold_name
from ...files import new_folder, read_json
from ...plurals import write_count
from ..base import Model
from ..cond import Cond
from ..opening.folder import open_folder as open_pipeline
from ..opening.pipeline import check_pipeline, read_side
from ..pictures import round_to_pictures
from ..schedule import copy_scheduler, read_levels, read_space
from ..trajectory import Defaults, Sampler

CLASSES = "classes.json"


@final
class Mixable(nn.Embedding):
    """A class embedding that reads labels [n], as an `nn.Embedding` does, or weights over the classes [n, k]."""

    def forward(self, input: Tensor) -> Tensor:
        if not input.is_floating_point():
            return nn.Embedding.forward(self, input)
        return input.to(self.weight.dtype) @ self.weight


@final
class DDPM(Model):
    """A `DDPMPipeline` with a class-conditional U-Net; its class embedding is exchanged for one that also mixes.

    A prompt is the name of a class, or holds exactly one as whole words: "a picture of a cat" means "cat", so that
    templates work. All other words are ignored. "" is the null class.
    """

    architecture: ClassVar[str] = "ddpm"
    text_sources: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def __init__(
        self,
        pipeline: DDPMPipeline,
        classes: Sequence[str],
        name: str,
        *,
        defaults: Defaults | None = None,
        words: Sequence[str] = (),
        compute: torch.dtype | None = None,
    ) -> None:
        self.pipeline, self.unet, self.classes = pipeline, pipeline.unet, tuple(classes)
        _check(self.unet, self.classes, name)
        self._labels = {fold_name(each): label for label, each in enumerate(self.classes)}
        # Longest first: where one name lies within another ("dog", "hot dog"), the longer is meant.
        spelled = "|".join(map(re.escape, sorted(self._labels, key=len, reverse=True)))
        self._named = re.compile(rf"(?<!\w)(?:{spelled})(?!\w)")
        self.unet.class_embedding = _make_mixable(self.unet.class_embedding)
        self.unet.eval()
        Model.__init__(self, {"unet": self.unet})
        self.name, self.defaults, self.own_words, self.compute = name, defaults or Defaults(), tuple(words), compute
        self.device, self.dtype = self.unet.device, self.unet.dtype
        self.resolution: int = read_side(self.unet.config.sample_size) or 0  # `_check` saw that there is one
        self.latent_shape = (3, self.resolution, self.resolution)
        self.space = read_space(pipeline.scheduler, name)
        self.levels = read_levels(pipeline.scheduler, name)

    def hash_decoder(self) -> str:
        return "pixels"

    def build_scheduler(self, sampler: Sampler = "own") -> Any:
        return copy_scheduler(self.pipeline.scheduler, sampler)

    def find_label(self, prompt: str) -> int:
        """The class that a prompt means.

        Raises:
            ValueError: it names no class, or several; the message lists similar names.
        """
        if not prompt:
            return len(self.classes)
        found = sorted({self._labels[each] for each in self._named.findall(fold_name(prompt))})
        if len(found) == 1:
            return found[0]
        if found:
            named = ", ".join(self.classes[label] for label in found)
            raise ValueError(f"{prompt!r} names {len(found)} classes ({named}); {self.name} draws one class a picture")
        asked = (fold_name(prompt), *fold_name(prompt).split())
        near = dict.fromkeys(name for part in asked for name in find_closest(part, self._labels))
        meant = " or ".join(repr(self.classes[self._labels[name]]) for name in near)
        raise ValueError(
            f"{prompt!r} names no class of {self.name}; "
            + (f"did you mean {meant}? " if near else "")
            + f"there are {', '.join(self.classes)}"
        )

    def _encode(self, texts: Sequence[str]) -> Cond:
        labels = torch.tensor([self.find_label(text) for text in texts], device=self.device)
        return Cond(pooled=F.one_hot(labels, len(self.classes) + 1).to(self.dtype))

    def _with_embedding(self, cond: Cond, embedding: Tensor) -> Cond:
        shape = cond.embedding.shape
        if embedding.numel() != shape[1]:
            raise ValueError(
                f"an embedding for {self.name} is [{shape[1]}], weights of {shape[1] - 1} classes and the null class; "
                f"got {tuple(embedding.shape)}"
            )
        return cond.with_embedding(embedding.reshape(shape).to(self.device, self.dtype))

    def _call_network(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        return self.unet(x_t, t, class_labels=cond.embedding, return_dict=False)[0]

    def decode(self, latents: Tensor) -> Tensor:
        scaled = (latents.detach().float() / 2 + 0.5).clamp(0, 1).cpu()
        return round_to_pictures(latents, scaled)

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        return (pictures.to(self.device).float() / 127.5 - 1).to(self.state_dtype)

    def list_words(self, size: int) -> list[str]:
        """The words that came with the model, or all its classes."""
        return list((self.own_words or self.classes)[:size])

    def save_pretrained(self, folder: str | Path) -> None:
        plain = {name: tensor.contiguous() for name, tensor in self.weights.items()}
        with new_folder(folder) as made, self.swap_in(plain):
            self.pipeline.save_pretrained(made)
            write_classes(made, self.classes)


def open_folder(
    location: str | Path,
    device: str | torch.device,
    dtype: torch.dtype | None,
    name: str,
    *,
    defaults: Defaults | None = None,
    words: Sequence[str] = (),
    compute: torch.dtype | None = None,
    variant: str = "",
) -> DDPM:
    """Opens a folder that `save_pretrained` wrote; the weights are in fp32 where no dtype is given.

    Raises:
        ValueError: the folder does not name its classes, its U-Net has another number of them, or a file is damaged.
    """
    file = Path(location) / CLASSES
    if not file.is_file():
        raise ValueError(f"{location} has no {CLASSES}; a JSON list of the class names, in order, would have worked")
    classes = read_json(file)
    if not isinstance(classes, list):
        raise ValueError(f"{file} holds a {type(classes).__name__}; a list of the class names would have worked")
    pipeline = open_pipeline(location, DDPMPipeline, variant).to(device)  # in fp32, whatever is stored
    pipeline = check_pipeline(pipeline.to(dtype) if dtype else pipeline, name)
    return DDPM(pipeline, classes, name, defaults=defaults, words=words, compute=compute)


def write_classes(folder: Path, classes: Sequence[str]) -> None:
    """Writes the class names in the order of their labels; the null class has no name."""
    (folder / CLASSES).write_text(json.dumps(list(classes), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _make_mixable(embedding: nn.Embedding) -> Mixable:
    made = Mixable(embedding.num_embeddings, embedding.embedding_dim, _weight=embedding.weight.detach())
    made.weight = embedding.weight
    return made


def _check(unet: UNet2DModel, classes: Sequence[str], name: str) -> None:
    """Raises ValueError where network and names do not belong together, or do not make coloured square pictures."""
    if not classes or not all(isinstance(each, str) and each.strip() for each in classes):
        raise ValueError(
            f"the classes of {name} are {list(classes)}; at least one name, and none empty, would have worked"
        )
    if len({fold_name(each) for each in classes}) < len(classes):
        raise ValueError(f"two classes of {name} share a name: {', '.join(classes)}")
    config: Any = unet.config
    if not isinstance(unet.class_embedding, nn.Embedding) or config.num_class_embeds != len(classes) + 1:
        raise ValueError(
            f"{name} has {write_count(len(classes), 'class name')} and num_class_embeds {config.num_class_embeds}; "
            "one embedding more "
            "than names would have worked, the last for the null class"
        )
    if (config.in_channels, config.out_channels) != (3, 3) or read_side(config.sample_size) is None:
        raise ValueError(
            f"{name} maps {config.in_channels} channels to {config.out_channels} at size {config.sample_size}; "
            "3 to 3 at a square size would have worked"
        )
