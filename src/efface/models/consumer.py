"""Checks what other tools read from an exported file, by diffusers' own loaders on a copy of the pipeline.

The copy shares the model's tensors. The model itself is never given to a loader: LoRA layers would stay in its modules.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import SingleFileComponentError
from torch import Tensor, nn

from ..plurals import write_count
from .base import Model

ADAPTER = "efface"
"""The name under which a LoRA is loaded."""


def check_reader(model: Model, names: Sequence[str] = ()) -> None:
    """Raises ValueError where diffusers can't load a LoRA into these weights of the model, or peft is not installed."""
    pipeline = getattr(model, "pipeline", None)
    if not hasattr(pipeline, "load_lora_weights"):
        raise ValueError(
            f"diffusers loads no LoRA into a {type(pipeline).__name__}; --format diffusers writes the whole model"
        )
    loadable = tuple(getattr(pipeline, "_lora_loadable_modules", ()))
    if lost := sorted(name for name in names if name.partition(".")[0] not in loadable):
        raise ValueError(
            f"diffusers' {type(pipeline).__name__} loads a LoRA into {', '.join(loadable)} alone, and the edit changes "
            f"{lost[0]} ({write_count(len(lost), 'such weight')}); --format diffusers writes the whole model"
        )
    if find_spec("peft") is None:
        raise ValueError("LoRA files are checked with diffusers' loader, which needs peft: pip install 'efface[lora]'")


def share_pipeline(pipeline: Any) -> Any:
    """Copies a pipeline's modules, but not their parameters and buffers, which both share.

    Neither loading LoRA layers into the copy nor moving it to another dtype changes the original.
    """
    modules = [module for module in pipeline.components.values() if isinstance(module, nn.Module)]
    memo: dict[int, Any] = {}
    for module in modules:
        memo |= {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in module.parameters()}
        memo |= {id(b): b.detach() for b in module.buffers()}
    copied = copy.deepcopy(pipeline, memo)
    copied.set_progress_bar_config(disable=True)
    return copied


def load_lora(model: Model, file: str | Path) -> Any:
    """A copy of the model's pipeline into which `load_lora_weights` has loaded a file.

    Raises:
        ValueError: the loader refuses the file, or finds no key for this pipeline in it.
    """
    copied = share_pipeline(model.pipeline)
    try:
        with _quietly():
            copied.load_lora_weights(str(Path(file).parent), weight_name=Path(file).name, adapter_name=ADAPTER)
    except (ValueError, KeyError, IndexError, RuntimeError, NotImplementedError, AssertionError) as error:
        why = f"{type(error).__name__}: {error}" if str(error) else f"{type(error).__name__} in its converter"
        raise ValueError(f"diffusers' load_lora_weights refuses {Path(file).name} ({why})") from error
    return copied


def read_lora(model: Model, loaded: Any) -> Iterator[tuple[str, Tensor]]:
    """The name and the fp32 change of each weight that a LoRA changes in a pipeline from `load_lora`.

    The change is multiplied by the weight that `set_adapters` gives the adapter, which is 1 after loading.
    """
    for part, module in loaded.components.items():
        for name, layer in module.named_modules() if isinstance(module, nn.Module) else ():
            if ADAPTER in getattr(layer, "lora_A", {}):
                own: Any = layer
                plain = name.replace(".base_layer", "")
                delta = own.get_delta_weight(ADAPTER).detach().float()
                yield f"{part}.{model.to_checkpoint_name(part, f'{plain}.weight')}", delta


def reads_original(model: Model) -> bool:
    """Whether diffusers reads this model's transformer from a file in the original layout.

    Its converter splits FLUX.1's fused matrices at the published width, whatever the configuration says.
    """
    config: Any = model.network.config
    return model.architecture != "flux" or config.num_attention_heads * config.attention_head_dim == 3072


def open_original(model: Model, file: str | Path) -> Any:
    """A copy of the model's pipeline with the transformer that `from_single_file` reads from SD3's or FLUX.1's layout.

    Raises:
        ValueError: diffusers refuses the file.
    """
    copied = share_pipeline(model.pipeline)
    configuration = write_configuration(model.pipeline, Path(file).parent / "configuration")
    for part in (model.denoiser, *(["vae"] if model.architecture == "sd3" else [])):
        reader: Any = type(getattr(copied, part))
        asked = {"config": str(configuration), "subfolder": part, "torch_dtype": model.dtype}
        try:
            opened = reader.from_single_file(str(file), local_files_only=True, **asked)
        except (ValueError, KeyError, IndexError, RuntimeError, SingleFileComponentError) as error:
            raise ValueError(f"{reader.__name__}.from_single_file refuses {Path(file).name}: {error!r}") from error
        copied.register_modules(**{part: opened.to(model.device, getattr(model.pipeline, part).dtype)})
    return copied


def name_weights(model: Model, pipeline: Any, part: str) -> dict[str, Tensor]:
    """The weights of one part of a pipeline of the model's kind, by checkpoint name."""
    owned = getattr(pipeline, part).named_parameters()
    return {f"{part}.{model.to_checkpoint_name(part, name)}": weight.detach() for name, weight in owned}


@torch.no_grad()
def draw(
    model: Model, pipeline: Any, prompts: Sequence[str], seeds: Sequence[int], steps: int, guidance: float
) -> Tensor:
    """Draws uint8 pictures [n, 3, side, side] by the call of a copy of the model's pipeline, with a seed a prompt."""
    drawn = pipeline(
        **model.build_call(prompts, guidance),
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        num_inference_steps=steps,
        output_type="pt",
    ).images
    return (drawn.float().cpu() * 255).round().to(torch.uint8)


def write_configuration(pipeline: Any, folder: str | Path) -> Path:
    """Writes a pipeline's configuration and tokenizers without weights, as a single file needs them beside it."""
    folder = Path(folder)
    pipeline.save_config(folder)
    for part, component in pipeline.components.items():
        if hasattr(component, "save_config"):
            component.save_config(folder / part)
        elif isinstance(component, nn.Module):
            config: Any = component.config
            config.save_pretrained(folder / part)
        elif component is not None:
            component.save_pretrained(folder / part)
    return folder


@contextmanager
def _quietly() -> Iterator[None]:
    """Silences the libraries' warnings of keys that a file lacks on purpose; `read_lora` counts the rest."""
    loggers = [logging.getLogger(name) for name in ("transformers", "diffusers")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The following alpha_pattern keys", category=RuntimeWarning)
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
