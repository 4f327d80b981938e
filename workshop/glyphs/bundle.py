"""Assemble what the wheel carries: the pipeline, the scoring CLIP, the judges and the description of the world."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import (
    AutoModelForImageClassification,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
)

from .scenes import GROUNDS, STYLED, TEMPLATES
from .unet import scheduler
from .world import LANGUAGES, World

TARGET = Path("src/efface/bundled/glyphs")
LIMIT = 64e6  # bytes
UNSAFE = "weapons"


def write(world: World, build: Path, target: Path = TARGET) -> None:
    """Write everything as fp16 safetensors; raises ValueError where the whole is over the limit."""
    half = torch.float16
    for old in ("model", "clip", "judges"):
        shutil.rmtree(target / old, ignore_errors=True)
    tokens = CLIPTokenizer.from_pretrained(build / "tokenizer")
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(build / "vae").to(half),
        text_encoder=text_tower(CLIPModel.from_pretrained(build / "clip")).to(half),
        tokenizer=tokens,
        unet=UNet2DConditionModel.from_pretrained(build / "unet").to(half),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(target / "model")
    for part in ("text_encoder", "unet", "vae"):
        tidy(target / "model" / part / "config.json")
    scoring = target / "clip"
    CLIPModel.from_pretrained(build / "scoring").to(half).save_pretrained(scoring)
    tidy(scoring / "config.json")
    tokens.save_pretrained(scoring)
    CLIPImageProcessorPil(
        do_resize=False, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3, size={"shortest_edge": 64}
    ).save_pretrained(scoring)
    for folder in sorted((build / "judges").iterdir()):
        out = target / "judges" / folder.name
        AutoModelForImageClassification.from_pretrained(folder).to(half).save_pretrained(out)
        tidy(out / "config.json")
        shutil.copy(folder / "preprocessor_config.json", out)
    (target / "world.json").write_text(json.dumps(describe(world), indent=1, ensure_ascii=False) + "\n")
    size = sum(f.stat().st_size for f in target.rglob("*") if f.is_file())
    print(f"bundled {size / 1e6:.1f} MB in {target}")
    if size > LIMIT:
        raise ValueError(f"the bundle is {size / 1e6:.1f} MB; at most {LIMIT / 1e6:.0f} MB can be shipped")


def text_tower(clip: CLIPModel) -> CLIPTextModel:
    """The text tower alone, in the class that a Stable Diffusion pipeline loads."""
    config = CLIPTextConfig(**clip.config.text_config.to_dict())
    tower = CLIPTextModel(config)
    state = clip.text_model.state_dict()
    prefix = "text_model." if any(k.startswith("text_model.") for k in tower.state_dict()) else ""
    tower.load_state_dict({prefix + k: v for k, v in state.items()})
    return tower


def tidy(config: Path) -> None:
    """Say float32 wherever a dtype is named, so that every part opens in one; drop the path it was built at."""

    def clean(fields: dict) -> dict:
        kept = {k: v for k, v in fields.items() if k != "_name_or_path"}
        kept |= {k: "float32" for k in kept if k == "dtype"}
        return kept | {k: clean(v) for k, v in kept.items() if k.endswith("_config") and isinstance(v, dict)}

    config.write_text(json.dumps(clean(json.loads(config.read_text())), indent=2) + "\n")


def describe(world: World) -> dict:
    """world.json: things, groups, words, backgrounds, held-out cells, and the half that fitting may know."""
    groups: dict[str, list[str]] = {}
    for t in world.things:
        groups.setdefault(t.group, []).append(t.name)
    names = {t.name for t in world.things}
    return {
        "size": world.size,
        "things": [
            {
                "name": t.name,
                "group": t.group,
                "synonyms": list(t.synonyms),
                "translations": dict(zip(LANGUAGES, t.translations, strict=True)),
                "description": t.description,
                "near": [n for n in t.near if n in names],
            }
            for t in world.things
        ],
        "groups": groups,
        "unsafe": groups[UNSAFE],
        "vocabulary": [name for members in groups.values() for name in members[::2]],
        "styles": [s.name for s in world.styles],
        "backgrounds": {k: list(v) for k, v in world.backgrounds.items()},
        "held_out": [[t.name, s.name] for t in world.things for s in world.styles if world.held_out(t.name, s.name)],
        "templates": {"plain": list(TEMPLATES), "styled": list(STYLED), "grounds": list(GROUNDS)},
    }
