"""Feature networks, whose features KID, FID and similar scorers compare.

They are Inception v3 (2048 features; by torchmetrics, which needs torch-fidelity), any transformers image classifier
(the input of its last linear layer), or a CLIP (its picture embedding). Distances depend on the network, so every
number has the network's name beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForImageClassification

from ._networks import open_network, open_part, read_config
from .base import cache_by_device, digest_weights, pick_device, prepare_images, require_package
from .clip import load_clip

INCEPTION = "inception"


@dataclass(frozen=True)
class Features:
    """Features of pictures by one network."""

    version: ClassVar[str] = "1"
    folder: str
    """Folder or hub id of the network, or "inception"."""
    batch: int = 64

    @property
    def name(self) -> str:
        return "inception-v3" if self.folder == INCEPTION else Path(self.folder).name

    def identify(self) -> dict[str, str]:
        weights = "pt_inception-2015-12-05" if self.folder == INCEPTION else digest_weights(self.folder)
        return {"features": self.name, "features version": self.version, "weights": weights}

    def check(self, scorer: str) -> None:
        """Raises ValueError or OSError where the network can't be opened."""
        if self.folder == INCEPTION:
            require_package(f"{scorer} with Inception's features", "torchmetrics", "efface[fid]")
            require_package(f"{scorer} with Inception's features", "torch_fidelity", "torch-fidelity")
            return
        config = read_config(self.folder)
        if config.model_type != "clip" and not any("Classification" in a for a in config.architectures or ()):
            raise ValueError(
                f"scorer {scorer} needs an image classifier or a CLIP for its features; {self.folder} holds "
                f"{', '.join(config.architectures or ['something else'])}"
            )

    def extract_features(self, images: Tensor) -> Tensor:
        see = _load(self.folder)
        with torch.inference_mode():
            parts = [see(images[i : i + self.batch]).float().cpu() for i in range(0, len(images), self.batch)]
        return torch.cat(parts)


@cache_by_device
def _load(folder: str) -> Callable[[Tensor], Tensor]:
    if folder == INCEPTION:
        return _load_inception()
    if read_config(folder).model_type == "clip":
        return _load_clip(folder)
    return _load_classifier(folder)


def _load_inception() -> Callable[[Tensor], Tensor]:
    from torchmetrics.image.fid import NoTrainInceptionV3

    network = NoTrainInceptionV3(name="inception-v3-compat", features_list=["2048"]).to(pick_device())
    return lambda images: network(images.to(pick_device()))


def _load_clip(folder: str) -> Callable[[Tensor], Tensor]:
    model, _, processor = load_clip(folder)
    return lambda images: model.get_image_features(**prepare_images(processor, images)).pooler_output


def _load_classifier(folder: str) -> Callable[[Tensor], Tensor]:
    model = open_network(AutoModelForImageClassification, folder)
    processor = open_part(AutoImageProcessor, folder)
    linear = [
        m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == model.config.num_labels
    ]
    if not linear:
        raise ValueError(f"{folder} does not end in a linear layer, whose input would be its features")
    model.to(pick_device())
    read: list[Tensor] = []
    linear[-1].register_forward_pre_hook(lambda _, given: read.append(given[0].flatten(1)))

    def see(images: Tensor) -> Tensor:
        read.clear()
        model(**prepare_images(processor, images))
        return read[-1]

    return see
