"""The only door to diffusers: opening models by name, folder, single file, hub id, or from memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..files import read_json, read_toml
from .opening.place import Place, check_name, locate, read_object

if TYPE_CHECKING:
    import torch

    from .base import Model
    from .quantised import Bits

BUNDLED = Path(__file__).parents[1] / "bundled"
RECORD = "efface.json"
"""The file of an exported folder that holds the edit's record: targets, base, method, arguments and versions, and how
the pipeline has to be called."""
KINDS = (
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "PixArtAlphaPipeline",
    "PixArtSigmaPipeline",
    "StableDiffusion3Pipeline",
    "FluxPipeline",
    "SanaPipeline",
    "ZImagePipeline",
    "QwenImagePipeline",
    "Flux2Pipeline",
    "Flux2KleinPipeline",
    "DDPMPipeline",
)
"""The classes of pipelines that a folder's `model_index.json` may name."""
Compute = Literal["own", "bf16", "auto"]


def list_bundled() -> list[str]:
    """The bundled models, which need no network and no folder."""
    return sorted(folder.parent.name for folder in BUNDLED.glob("*/model"))


def check_model_name(source: str | Path) -> None:
    """Raises ValueError for a name that can't be a model's, at once: it needs neither torch nor the network."""
    check_name(str(source), list_bundled())


def load(
    source: Any,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    compute: Compute | None = None,
    *,
    checkpointing: bool = False,
    compile: bool = False,
    offload: bool = False,
    deterministic: bool = False,
    store: str | Path | None = None,
    store_bound: int | None = None,
    draw_batch: int = 0,
    variant: str = "",
    guidance_rescale: float = 0.0,
    quantise: Bits = 0,
) -> Model:
    """Opens a model, and checks it before anything is drawn (`opening/`).

    The arguments and errors are those of `efface.load`, which explains each; a pipeline in memory is one of `KINDS`.
    """
    from .devices import choose_device_and_dtype
    from .offload import prepare
    from .trajectory_cache import BOUND, TrajectoryCache

    if draw_batch < 0:
        raise ValueError(f"draw_batch has to be 0 or a number of pictures, got {draw_batch}")
    where, cast = choose_device_and_dtype(source, device, dtype, compute, compile, quantise)
    if isinstance(source, str | Path):
        model = _open_files(str(source), where, cast, compute, variant, guidance_rescale, quantise)
    elif variant:
        raise ValueError(f"a variant ({variant}) can be chosen only for files, and this pipeline is in memory already")
    else:
        model = _open_memory(source, device, cast, compute, guidance_rescale)
    prepare(
        model.pipeline,
        model.network,
        str(model.device),
        checkpointing=checkpointing,
        compile=compile,
        offload=offload,
        deterministic=deterministic,
        channels_last=not quantise
        and isinstance(source, str | Path)
        and model.device.type == "cuda",  # a pipeline in memory keeps its own
    )
    model.draw_batch, model.guidance_rescale = draw_batch, guidance_rescale
    model.parked, model.steady = offload, set() if compile else None
    if store is not None or store_bound is not None:
        model.recordings = TrajectoryCache(store, BOUND if store_bound is None else store_bound)
    return model


def _open_files(
    source: str,
    device: str,
    cast: torch.dtype | None,
    compute: Compute | None,
    variant: str,
    rescale: float,
    quantise: Bits,
) -> Model:
    """Opens a model by its name, folder, hub id or file."""
    import torch

    from .opening.pipeline import cast_pipeline, check_pipeline
    from .quantised import check_source

    place = locate(source, {name: BUNDLED / name / "model" for name in list_bundled()}, KINDS, variant)
    native = _choose_compute(compute or ("auto" if place.bundled else "own"), device)
    defaults, words = _read_bundled(BUNDLED / place.bundled) if place.bundled else (None, ())
    name = place.bundled or source
    if quantise:
        check_source(quantise, source, place.kind, place.config is not None)
        _list_adapters()[place.kind][1].check_guidance_rescale(rescale, name)
        return _open_quantised(place, device, cast or torch.bfloat16, native, variant, quantise, name)
    if place.kind == "DDPMPipeline":
        from .adapters import ddpm

        ddpm.DDPM.check_guidance_rescale(rescale, name)
        return ddpm.open_folder(
            place.location, device, cast, name, defaults=defaults, words=words, compute=native, variant=variant
        )
    adapter = _list_adapters()[place.kind][1]
    adapter.check_guidance_rescale(rescale, name)
    # The weights are cast after opening, so that parts that are stored in different dtypes get the same one.
    pipeline = check_pipeline(cast_pipeline(_open(place, variant), device, cast or torch.float32), name)
    if native and device == "cpu" and hasattr(pipeline, "unet"):
        from .adapters.sd import lay_out_for_amx

        lay_out_for_amx(pipeline)
    model = adapter(pipeline, name, defaults=defaults, words=words, compute=native)
    if place.config is None and not place.bundled:
        model.folder = Path(place.location)
    if (file := Path(place.location) / RECORD).is_file():
        model.read_own_call(read_object(file).get("call"))
    return model


def _open_quantised(
    place: Place, device: str, cast: torch.dtype, native: torch.dtype | None, variant: str, bits: Bits, name: str
) -> Model:
    """Opens a model whose denoiser is quantised while it is read; its fingerprint is that of the files' weights."""
    from accelerate.hooks import remove_hook_from_module

    from .opening.folder import open_folder
    from .opening.pipeline import check_pipeline, list_modules
    from .quantised import build_reading_arguments, find_stored, serve_swaps

    pipeline, adapter = _list_adapters()[place.kind]
    part = adapter.denoiser
    opened = open_folder(place.location, pipeline, variant, {part: build_reading_arguments(bits, device, cast)})
    for other, module in list_modules(opened).items():
        if other == part:  # it is on the GPU already, so that the hooks that move its inputs there are not needed
            remove_hook_from_module(module, recurse=True)
        else:
            module.to(device, cast)
    model = adapter(check_pipeline(opened, name, packed=(part,)), name, defaults=None, words=(), compute=native)
    if not serve_swaps(model.network):
        raise ValueError(f"{name} has no linear layer that could be quantised; leave --quantise out")
    model.quantise(bits, find_stored(Path(place.location), part, variant, set(model.weights), cast))
    return model


def _list_adapters() -> dict[str, tuple[Any, Any]]:
    """The class of pipeline and the adapter for each kind of pipeline."""
    from .adapters.flux import Flux, FluxPipeline
    from .adapters.flux2 import Flux2, Flux2KleinPipeline, Flux2Pipeline
    from .adapters.pixart import PixArt, PixArtAlphaPipeline, PixArtSigmaPipeline
    from .adapters.qwen_image import QwenImage, QwenImagePipeline
    from .adapters.sana import Sana, SanaPipeline
    from .adapters.sd import StableDiffusion, StableDiffusionPipeline
    from .adapters.sd3 import StableDiffusion3, StableDiffusion3Pipeline
    from .adapters.sdxl import StableDiffusionXL, StableDiffusionXLPipeline
    from .adapters.z_image import ZImage, ZImagePipeline

    pairs = (
        (StableDiffusionPipeline, StableDiffusion),
        (StableDiffusionXLPipeline, StableDiffusionXL),
        (PixArtAlphaPipeline, PixArt),
        (PixArtSigmaPipeline, PixArt),
        (StableDiffusion3Pipeline, StableDiffusion3),
        (FluxPipeline, Flux),
        (SanaPipeline, Sana),
        (ZImagePipeline, ZImage),
        (QwenImagePipeline, QwenImage),
        (Flux2Pipeline, Flux2),
        (Flux2KleinPipeline, Flux2),
    )
    return {pipeline.__name__: (pipeline, adapter) for pipeline, adapter in pairs}


def _open_memory(
    pipeline: Any, device: Any, cast: torch.dtype | None, compute: Compute | None, rescale: float
) -> Model:
    from .opening.pipeline import check_hooks, check_pipeline, unwrap

    for known, adapter in _list_adapters().values():
        if isinstance(pipeline, known):
            plain = unwrap(pipeline)
            adapter.check_guidance_rescale(rescale, _read_name(plain))
            check_hooks(plain, _read_name(plain))  # first: a pipeline that is offloaded can't be moved
            placed = check_pipeline(plain.to(device, cast) if device or cast else plain, _read_name(plain))
            return adapter(placed, _read_name(placed), compute=_choose_compute(compute or "own", str(placed.device)))
    raise ValueError(
        f"cannot open a {type(pipeline).__name__}; give a name, a folder, a single file, a hub id, or one of these in "
        f"memory: {', '.join(_list_adapters())}"
    )


def _open(place: Place, variant: str) -> Any:
    """Opens the pipeline at a place, in fp32 on the CPU."""
    from .adapters import single_file
    from .opening.folder import open_folder
    from .opening.shared import whole

    if place.config is not None:
        return single_file.open_file(place.location, place.config)
    kind = _list_adapters()[place.kind][0]
    if not place.bundled:
        return open_folder(place.location, kind, variant)
    with whole(Path(place.location)) as folder:
        return open_folder(folder, kind, variant)


def _read_bundled(folder: Path) -> tuple[Any, tuple[str, ...]]:
    """The defaults and the word list of a bundled model."""
    from .trajectory import Defaults

    file = folder / "defaults.toml"
    table = read_toml(file) if file.is_file() else {}
    draw = table.get("draw", {})
    world = folder / "world.json"
    words = read_json(world).get("vocabulary", ()) if world.is_file() else ()
    base = Defaults()
    said = {name: draw.get(name, getattr(base, name)) for name in ("steps", "guidance", "blank_tokens")}
    return Defaults(**said, methods=table.get("method", {})), tuple(words)


def _choose_compute(compute: Compute, device: str) -> torch.dtype | None:
    import torch

    from .devices import computes_bf16

    if compute not in ("own", "bf16", "auto"):
        raise ValueError(f"no compute {compute!r}; there are own, bf16, auto")
    if device.startswith("cuda"):
        native = computes_bf16(device)
    else:
        native = device == "cpu" and torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if compute == "bf16" or (compute == "auto" and native) else None


def _read_name(pipeline: Any) -> str:
    return str(getattr(pipeline.config, "_name_or_path", "") or "pipeline")
