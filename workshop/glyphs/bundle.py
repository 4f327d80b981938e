"""Assemble what the wheel carries: the pipeline, the scoring CLIP, the judges and the description of the world."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMPipeline, StableDiffusionPipeline, UNet2DConditionModel, UNet2DModel
from transformers import (
    AutoModelForImageClassification,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
)

from efface.models.adapters.ddpm import write_classes

from . import ddpm
from .scenes import GROUNDS, STYLED, TEMPLATES
from .unet import build_scheduler
from .world import LANGUAGES, World, load

TARGET = Path("src/efface/bundled/glyphs")
DDPM_TARGET = TARGET.with_name("glyphs-ddpm")
LIMIT = 64e6  # bytes
DDPM_LIMIT = 8e6
UNSAFE = "weapons"


def write(world: World, build: Path, target: Path = TARGET) -> None:
    """Write everything as fp16 safetensors; raises ValueError where the whole is over the limit."""
    half = torch.float16
    for old in ("model", "clip", "judges"):
        shutil.rmtree(target / old, ignore_errors=True)
    tokens = CLIPTokenizer.from_pretrained(build / "tokenizer")
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(build / "vae").to(half),
        text_encoder=build_text_tower(CLIPModel.from_pretrained(build / "clip")).to(half),
        tokenizer=tokens,
        unet=UNet2DConditionModel.from_pretrained(build / "unet").to(half),
        scheduler=build_scheduler(),
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


def unpack(build: Path, target: Path = TARGET) -> None:
    """Fill the build folder with the bundle's parts in float32, to train them on; what lies there already stays.

    The bundle holds only the text tower of the conditioning CLIP, so the picture tower beside it is the scoring CLIP's.
    """
    model = target / "model"
    tokens = CLIPTokenizer.from_pretrained(model / "tokenizer")
    scoring = CLIPModel.from_pretrained(target / "clip").float()
    clip = CLIPModel.from_pretrained(target / "clip").float()
    tower = CLIPTextModel.from_pretrained(model / "text_encoder").float().state_dict()
    clip.text_model.load_state_dict({k.removeprefix("text_model."): v for k, v in tower.items()})
    parts = {
        "tokenizer": tokens,
        "vae": AutoencoderKL.from_pretrained(model / "vae").float(),
        "unet": UNet2DConditionModel.from_pretrained(model / "unet").float(),
        "ddpm": UNet2DModel.from_pretrained(target.with_name("glyphs-ddpm") / "model" / "unet").float(),
        "clip": clip,
        "scoring": scoring,
    }
    for folder in sorted((target / "judges").iterdir()):
        parts[f"judges/{folder.name}"] = AutoModelForImageClassification.from_pretrained(folder).float()
    for name, part in parts.items():
        if not (build / name).exists():
            part.save_pretrained(build / name)
            if name.startswith("judges"):
                shutil.copy(target / name / "preprocessor_config.json", build / name)
            print(f"unpacked {build / name}")


def write_ddpm(build: Path, target: Path = DDPM_TARGET) -> None:
    """Write the class-conditional model as fp16 safetensors, with its classes and its part of the world.

    It has no judges of its own: `judges` in its world.json names the bundle, beside it, whose judges know its things.
    """
    made = target / "model"
    shutil.rmtree(made, ignore_errors=True)
    DDPMPipeline(UNet2DModel.from_pretrained(build / "ddpm").to(torch.float16), ddpm.build_scheduler()).save_pretrained(
        made
    )
    tidy(made / "unet" / "config.json")
    write_classes(made, ddpm.list_classes())
    facts = list_heard(describe(load(ddpm.WORLD))) | {"judges": TARGET.name}
    (target / "world.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    size = sum(f.stat().st_size for f in target.rglob("*") if f.is_file())
    print(f"bundled {size / 1e6:.1f} MB in {target}")
    if size > DDPM_LIMIT:
        raise ValueError(f"the bundle is {size / 1e6:.1f} MB; at most {DDPM_LIMIT / 1e6:.0f} MB can be shipped")


def list_heard(facts: dict) -> dict:
    """What of a world a class-conditional model can be asked for: things by their names, and nothing else."""
    things = [t | {"synonyms": [], "translations": {}} for t in facts["things"]]
    templates = {"plain": facts["templates"]["plain"], "styled": [], "grounds": []}
    return facts | {"things": things, "styles": [], "backgrounds": {}, "held_out": [], "templates": templates}


def build_text_tower(clip: CLIPModel) -> CLIPTextModel:
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
        "pairs": world.size == "full",
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
        "held_out": [[t.name, s.name] for t in world.things for s in world.styles if world.is_held_out(t.name, s.name)],
        "templates": {"plain": list(TEMPLATES), "styled": list(STYLED), "grounds": list(GROUNDS)},
    }
