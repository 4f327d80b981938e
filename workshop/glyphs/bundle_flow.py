"""Assemble the flow's part of the wheel: a Stable Diffusion 3 pipeline, whose judges and world are the U-Net's."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import CLIPTokenizer

from . import flow
from .bundle import TARGET, describe, tidy
from .world import World

FLOW_TARGET = TARGET.with_name("glyphs-flow")
LIMIT = 42e6  # bytes; of these 17 MB are text towers and autoencoder, which the bundle beside it holds as well
DEFAULTS = """# Arguments where nothing is said: values for this small model, not those of the papers' models.

[draw]
steps = 20
guidance = 3.0
blank_tokens = 0  # it was trained without the zeros that stand for a missing T5
"""


def write(world: World, build: Path, target: Path = FLOW_TARGET) -> None:
    """Write the pipeline as fp16 safetensors; raises ValueError where the whole is over the limit.

    `judges` in its world.json names the bundle beside it, whose judges know its things.
    """
    half, made = torch.float16, target / "model"
    shutil.rmtree(made, ignore_errors=True)
    first, second = (tower.to("cpu", half) for tower in flow.load_towers(build))
    tokens = CLIPTokenizer.from_pretrained(build / "tokenizer")
    StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel.from_pretrained(build / "flow").to(half),
        scheduler=flow.scheduler(),
        vae=AutoencoderKL.from_pretrained(build / "vae").to(half),
        text_encoder=first,
        tokenizer=tokens,
        text_encoder_2=second,
        tokenizer_2=tokens,
        text_encoder_3=None,  # type: ignore[arg-type]
        tokenizer_3=None,  # type: ignore[arg-type]
    ).save_pretrained(made)
    for part in ("text_encoder", "text_encoder_2", "transformer", "vae"):
        tidy(made / part / "config.json")
    facts = describe(world) | {"judges": TARGET.name}
    (target / "world.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    (target / "defaults.toml").write_text(DEFAULTS)
    size = sum(f.stat().st_size for f in target.rglob("*") if f.is_file())
    print(f"bundled {size / 1e6:.1f} MB in {target}")
    if size > LIMIT:
        raise ValueError(f"the bundle is {size / 1e6:.1f} MB; at most {LIMIT / 1e6:.0f} MB can be shipped")
