"""The only door to diffusers: opening models by name, folder, hub id, or from memory."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

    from .base import Model

BUNDLED = Path(__file__).parents[1] / "bundled"
Compute = Literal["own", "bf16", "auto"]


def names() -> list[str]:
    """The models that need no network and no folder."""
    return sorted(folder.parent.name for folder in BUNDLED.glob("*/model"))


def load(
    source: Any,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    compute: Compute | None = None,
) -> Model:
    """Opens a model.

    Args:
        source: "glyphs", a diffusers folder, a hub id, or a `StableDiffusionPipeline` in memory.
        device: by default a GPU where there is one; a pipeline in memory stays where it is.
        dtype: of the weights, "fp32" by default; a pipeline in memory keeps its own.
        compute: "own" computes in the weights' dtype, "bf16" autocasts inside the network, "auto" does so where the
            hardware multiplies bf16 natively. Bundled models default to "auto", all others to "own".

    Raises:
        ValueError: nothing of that name, or not a pipeline that this toolkit knows.
    """
    import torch

    from .base import CASTS
    from .sd import StableDiffusion, StableDiffusionPipeline, for_amx

    if isinstance(dtype, str) and dtype not in CASTS:
        raise ValueError(f"no dtype {dtype!r}; there are {', '.join(CASTS)}")
    cast = CASTS[dtype] if isinstance(dtype, str) else dtype
    if isinstance(source, StableDiffusionPipeline):
        pipeline = source.to(device, cast) if device or cast else source
        return StableDiffusion(pipeline, _name(source), compute=_compute(compute or "own", str(pipeline.device)))
    device = str(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    location, bundled = _locate(source)
    # Opened first and cast after: a folder whose parts are stored in different dtypes then still agrees with itself.
    pipeline = StableDiffusionPipeline.from_pretrained(location, safety_checker=None, requires_safety_checker=False)
    pipeline = pipeline.to(device, cast or torch.float32)
    native = _compute(compute or ("auto" if bundled else "own"), device)
    if native and device == "cpu":
        for_amx(pipeline)
    defaults, words = _bundled_facts(BUNDLED / bundled) if bundled else (None, ())
    return StableDiffusion(pipeline, bundled or str(source), defaults=defaults, words=words, compute=native)


def _locate(source: Any) -> tuple[str, str]:
    """Where a model lies, and its name where it is bundled."""
    if not isinstance(source, str | Path):
        raise ValueError(f"cannot open a {type(source).__name__}; give a name, a folder, a hub id or a pipeline")
    known = ", ".join(names()) or "none bundled"
    if str(source) in names():
        return str(BUNDLED / str(source) / "model"), str(source)
    if Path(source).is_dir():
        index = Path(source) / "model_index.json"
        kind = json.loads(index.read_text()).get("_class_name") if index.is_file() else "no diffusers pipeline"
        if kind != "StableDiffusionPipeline":
            raise ValueError(f"{source} holds {kind}; a folder with a StableDiffusionPipeline would have worked")
        return str(source), ""
    if str(source).count("/") == 1 and not str(source).startswith((".", "/", "~")):
        return str(source), ""
    raise ValueError(f"no model {str(source)!r}; give one of: {known}; or a diffusers folder, or a hub id owner/name")


def _bundled_facts(folder: Path) -> tuple[Any, tuple[str, ...]]:
    """Defaults and vocabulary of a bundled model."""
    from .base import Defaults

    file = folder / "defaults.toml"
    table = tomllib.loads(file.read_text()) if file.is_file() else {}
    draw = table.get("draw", {})
    world = folder / "world.json"
    words = json.loads(world.read_text()).get("vocabulary", ()) if world.is_file() else ()
    base = Defaults()
    return Defaults(draw.get("steps", base.steps), draw.get("guidance", base.guidance), table.get("method", {})), tuple(
        words
    )


def _compute(compute: Compute, device: str) -> torch.dtype | None:
    import torch

    if compute not in ("own", "bf16", "auto"):
        raise ValueError(f"no compute {compute!r}; there are own, bf16, auto")
    if device.startswith("cuda"):
        native = torch.cuda.is_bf16_supported()
    else:
        native = device == "cpu" and torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if compute == "bf16" or (compute == "auto" and native) else None


def _name(pipeline: Any) -> str:
    return str(getattr(pipeline.config, "_name_or_path", "") or "pipeline")
