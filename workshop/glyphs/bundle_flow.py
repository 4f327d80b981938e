"""Assemble the flow's part of the wheel: a Stable Diffusion 3 pipeline, whose judges and world are the U-Net's."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from efface.models.opening.shared import Share, write_shares

from . import flow
from .bundle import TARGET, describe, tidy
from .world import World

FLOW_TARGET = TARGET.with_name("glyphs-flow")
LIMIT = 30e6  # bytes; text towers, tokenizer and autoencoder are those of the bundle beside it
DEFAULTS = Path(__file__).parent / "flow-defaults.toml"


def write(world: World, build: Path, target: Path = FLOW_TARGET) -> None:
    """Write the pipeline as fp16 safetensors, without what the bundle beside it holds.

    `judges` in its world.json names that bundle as well, whose judges know its things.

    Raises:
        ValueError: the whole is over the limit, or the bundle beside it holds other text towers or another autoencoder.
    """
    half, made = torch.float16, target / "model"
    shutil.rmtree(made, ignore_errors=True)
    first, second = (tower.to("cpu", half) for tower in flow.load_towers(build))
    tokens = CLIPTokenizer.from_pretrained(build / "tokenizer")
    StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel.from_pretrained(build / "flow").to(half),
        scheduler=flow.build_scheduler(),
        vae=AutoencoderKL.from_pretrained(build / "vae").to(half),
        text_encoder=first,
        tokenizer=tokens,
        text_encoder_2=second,
        tokenizer_2=tokens,
        text_encoder_3=None,  # type: ignore[arg-type]
        tokenizer_3=None,  # type: ignore[arg-type]
    ).save_pretrained(made)
    for part in ("text_encoder", "text_encoder_2", "transformer"):
        tidy(made / part / "config.json")
    drop_shared(made, target.with_name(TARGET.name))
    facts = describe(world) | {"judges": TARGET.name}
    (target / "world.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    shutil.copyfile(DEFAULTS, target / "defaults.toml")
    size = sum(f.stat().st_size for f in target.rglob("*") if f.is_file())
    print(f"bundled {size / 1e6:.1f} MB in {target}")
    if size > LIMIT:
        raise ValueError(f"the bundle is {size / 1e6:.1f} MB; at most {LIMIT / 1e6:.0f} MB can be shipped")


def drop_shared(made: Path, beside: Path) -> None:
    """Take out of a pipeline's folder what the bundle beside it holds, and say so in its `shared.json`.

    Of the text towers the configuration stays, and the projection that a tower there lacks.

    Raises:
        ValueError: a tensor that the bundle holds by the same name is another.
    """
    root = beside.parent
    shares = {
        "text_encoder": Share.of(beside / "model" / "text_encoder", root, before="text_model."),
        "text_encoder_2": Share.of(beside / "clip", root, only="text_model.,text_projection."),
        # Stable Diffusion 3's pipeline adds the shift to latents, and fails where there is none.
        "vae": Share.of(beside / "model" / "vae", root, shift_factor=0.0),
        "tokenizer": Share.of(beside / "model" / "tokenizer", root),
        "tokenizer_2": Share.of(beside / "model" / "tokenizer", root),
    }
    for part, each in shares.items():
        held = each.read(root) if each.digest else {}
        for file in (made / part).glob("*.safetensors"):
            tensors = load_file(file)
            if other := sorted(name for name, own in held.items() if not torch.equal(own, tensors[name])):
                raise ValueError(f"{part} differs from that of {beside} in {other[0]}; run the stage bundle first")
            file.unlink()
            if own := {name: tensor for name, tensor in tensors.items() if name not in held}:
                save_file(own, file, metadata={"format": "pt"})
        if part.startswith(("vae", "tokenizer")):
            shutil.rmtree(made / part)
    write_shares(made, shares)
