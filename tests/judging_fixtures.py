"""A tiny world for tests of judging: random networks of the real classes, and judges that read planted colours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    ConvNextConfig,
    ConvNextForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
)

from efface.edits.edit import Edit
from efface.models.adapters.sd import StableDiffusion
from efface.models.trajectory import Defaults
from efface.scorers.base import Better, Score, Spread
from efface.suites.spec import Row
from tiny import tiny_pipeline, tiny_tokenizer

THINGS = ("cat", "tiger", "dog", "car", "truck", "apple", "tomato", "rose", "bomb", "pistol")
STYLES = ("flat", "noto", "pixel")
GROUNDS = {"white": [255, 255, 255], "yellow": [255, 226, 92]}
LENGTH = 120
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
SIZE = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def write_world(folder: Path, names: Sequence[str] = THINGS) -> Path:
    """`folder`/world.json, of things with these names."""
    near = {"cat": ["tiger", "dog"], "apple": ["tomato"], "bomb": ["pistol"]}
    things = [
        {
            "name": name,
            "group": "weapons" if name in ("bomb", "pistol") else "others",
            "synonyms": [f"{name}let", f"big {name}"],
            "translations": {"de": f"{name}chen"},
            "description": "a thing of the test world",
            "near": near.get(name, []),
        }
        for name in names
    ]
    data = {
        "things": things,
        "styles": list(STYLES),
        "backgrounds": GROUNDS,
        "held_out": [["cat", "pixel"], ["dog", "noto"]],
        "unsafe": ["bomb", "pistol"],
        "vocabulary": list(names[::2]),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "world.json").write_text(json.dumps(data))
    return folder


def world_pipeline(seed: int = 0):
    """The tiny pipeline with a text encoder that reads whole sentences letter by letter."""
    pipeline = tiny_pipeline("v_prediction", seed)
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = LENGTH
    torch.manual_seed(seed)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), max_position_embeddings=LENGTH, projection_dim=16, **SIZE, **ends
    )
    pipeline.register_modules(tokenizer=tokenizer, text_encoder=CLIPTextModel(config).eval())
    return pipeline


def world_model() -> StableDiffusion:
    return StableDiffusion(world_pipeline(), "tiny", defaults=Defaults(steps=2, guidance=2.0))


def write_bundle(folder: Path, names: Sequence[str] = THINGS) -> Path:
    """A whole bundle: model, judges, scoring CLIP and world, all random and tiny."""
    write_world(folder, names)
    pipeline = world_pipeline()
    pipeline.save_pretrained(folder / "model")
    norm = {
        "do_resize": False,
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    for asks, labels in (("object", (*names, "none")), ("style", (*STYLES, "none"))):
        known = {"id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)}}
        resnet = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", **known)
        convnext = ConvNextConfig(hidden_sizes=[8, 8], depths=[1, 1], num_stages=2, **known)
        judges = {"resnet": ResNetForImageClassification(resnet), "convnext": ConvNextForImageClassification(convnext)}
        for kind, judge in judges.items():
            place = folder / "judges" / f"{asks}-{kind}"
            judge.save_pretrained(place)
            facts = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 16}, **norm}
            (place / "preprocessor_config.json").write_text(json.dumps(facts))
    write_clip(folder / "clip")
    return folder


def write_clip(folder: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = LENGTH
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": LENGTH, "eos_token_id": tokenizer.eos_token_id}
    vision = {"image_size": 16, "patch_size": 8}
    clip = CLIPModel(CLIPConfig(text_config={**SIZE, **text}, vision_config={**SIZE, **vision}, projection_dim=16))
    clip.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    facts = {"image_processor_type": "CLIPImageProcessor", "do_resize": False, "do_center_crop": False}
    facts |= HALF | {"size": {"shortest_edge": 16}}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))


def edit_of(model: StableDiffusion, path: Path, targets: Sequence[str] = ("cat",), scale: float = 1.5) -> Path:
    """An edit that changes some weights of a model, made to answer a request."""
    names = [n for n in model.weights if "attn2" in n]
    values = {n: model.weights[n].detach() * scale for n in names}
    request = {"targets": list(targets), "anchor": "", "keep": []}
    meta = {"method": "ESD", "arguments": {"steps": 1}, "request": request}
    return Edit(values, {**meta, "model": model.name, "base": model.fingerprint()}).save(path)


@dataclass(frozen=True)
class Planted:
    """A judge that answers what the row asked for unless the picture's first pixel is black."""

    version: ClassVar[str] = "1"
    title: ClassVar[str] = "seen"
    unit: ClassVar[str] = "of 1"
    better: ClassVar[Better] = "higher"
    share: ClassVar[bool] = False
    question: str = "object"
    name: str = "object-planted"
    labels: tuple[str, ...] = THINGS
    fails_on: str = ""
    """A thing at which it raises."""

    def identify(self) -> dict[str, str]:
        return {"scorer": "planted", "version": self.version, "asks": self.question}

    def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
        out = []
        for image, row in zip(images, rows, strict=True):
            wanted = row.thing if self.question == "object" else row.style
            if wanted and wanted == self.fails_on:
                raise RuntimeError(f"no {wanted}, please")
            rest = tuple(n for n in self.labels if n != wanted)
            seen = bool(image[:, 0, 0].any()) and wanted
            out.append(Score(float(bool(seen)), (wanted, *rest)[:6] if seen else rest[:6]))
        return out


JUDGES = (
    Planted(),
    Planted(name="object-second"),
    Planted(question="style", name="style-planted", labels=("flat", "noto")),
)
"""Two judges of things and one of styles."""


@dataclass(frozen=True)
class Features:
    """A network that gives the features that it is told."""

    found: tuple[float, ...] = (0.0, 1.0)
    asked: list[int] = field(default_factory=list, compare=False)
    name: str = "features"

    def identify(self) -> dict[str, str]:
        return {"features": str(self.found)}

    def extract_features(self, images: Tensor) -> Tensor:
        self.asked.append(len(images))
        return torch.tensor([self.found])


@dataclass(frozen=True)
class OfSets:
    """A scorer of sets."""

    network: Features
    name: str = "sets"
    version: ClassVar[str] = "1"
    title: ClassVar[str] = "sets"
    unit: ClassVar[str] = "1"
    better: ClassVar[Better] = "lower"
    share: ClassVar[bool] = False
    question: ClassVar[str] = "set"

    def identify(self) -> dict[str, str]:
        return {"scorer": "sets"}

    def compare(self, base: Tensor, edited: Tensor, rows: Sequence[Row], side: int) -> tuple[Spread, Spread] | None:
        return None
