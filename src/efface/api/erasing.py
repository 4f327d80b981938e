"""`efface.load` and `efface.erase`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..concept import Erasure
from .cost import measure_cost, was_begun
from .memory import with_memory_advice
from .progress import Progress, Report, show_progress_with_steps
from .resources import LazyModel, check_request, expand, open_later, to_file_name
from .tracking import FOLDER, Log, Track, check_trackers, name_losses, open_trackers

if TYPE_CHECKING:
    from ..edits.edit import Edit
    from ..methods.base import Method
    from ..models.base import Model
    from ..planning.plan import Plan
    from ..training.trainer import Trainer


@with_memory_advice
def load(
    source: Any,
    device: Any = None,
    dtype: Any = None,
    compute: Any = None,
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
    quantise: Literal[0, 4, 8] = 0,
) -> Model:
    """Opens a model, and checks it: by a name, a folder, a single file, a hub id, or from a pipeline in memory.

    Args:
        source: a bundled name, a diffusers folder, a hub id, a single-file checkpoint in the original layout, or a
            diffusers pipeline of a supported architecture in memory. A single file holds no configuration and no
            tokenizer: "FILE.safetensors@FOLDER" takes them from a diffusers folder (or name, or hub id) of the same
            architecture, "FILE.safetensors" from the hub or its cache.
        device: where the model works; by default a GPU where there is one. A pipeline in memory stays where it is.
        dtype: the dtype of the weights; by default "fp32" on a CPU, and on a GPU "bf16" where it computes in bf16, else
            "fp16". A pipeline in memory keeps its own.
        compute: "own" computes in the weights' dtype, "bf16" autocasts inside the network, "auto" does so where the
            hardware multiplies bf16 natively. Bundled models default to "auto", all others to "own".
        checkpointing: whether to recompute activations in the backward pass rather than keep them.
        compile: whether to compile the network, once for each batch size.
        offload: whether to keep text encoders and autoencoder on the CPU between their calls; needs a GPU.
        deterministic: whether a GPU uses only kernels that give the same bits every time; some are slower.
        store: a folder that keeps drawn trajectories, for later runs as well.
        store_bound: bytes of trajectories that are held in memory, 2 GiB by default; the rest is on disk.
        draw_batch: pictures that a training draws at once; 0 means 32, or fewer where latents are large.
        variant: which weights of a folder or hub id to open where there are several: "fp16" for the files
            `*.fp16.safetensors`. Parts without this variant, and all parts where none is named, open their plain
            weights, or the only ones that they have.
        guidance_rescale: how far guided predictions are rescaled to the standard deviation of the conditional
            prediction, 0 to 1, as by the same argument of Stable Diffusion's and SDXL's pipelines; for models with zero
            terminal SNR the paper suggests 0.7 (Lin et al., arXiv 2305.08891). It acts wherever this model draws.
        quantise: 4 or 8 holds each weight of the denoiser's linear layers in so many bits, on a GPU with bitsandbytes
            (the extra `cuda`), for guides and methods of low rank; 0 leaves them as they are.

    Returns:
        The model, on its device: `model.images(["a cat"])` draws, and `efface.erase` and the other functions take it.

    Raises:
        ValueError: nothing has that name, it is no pipeline that this toolkit knows, a file is damaged, the pipeline
            was changed in a way that is not supported, the device lacks what an argument needs, `draw_batch` is below
            0, or `guidance_rescale` is given where the pipeline has none.

    Example:
        >>> model = efface.load("glyphs", device="cpu")  # doctest: +SKIP
    """
    from ..models import loading

    return loading.load(
        source,
        device,
        dtype,
        compute,
        checkpointing=checkpointing,
        compile=compile,
        offload=offload,
        deterministic=deterministic,
        store=store,
        store_bound=store_bound,
        draw_batch=draw_batch,
        variant=variant,
        guidance_rescale=guidance_rescale,
        quantise=quantise,
    )


@with_memory_advice
def erase(
    model: Model | LazyModel | str | Path,
    what: str | Erasure | Iterable[str],
    method: str | type[Method] | Method = "eap",
    *,
    anchor: str = "",
    keep: str | Iterable[str] = (),
    max_memory: str | int | None = None,
    checkpoint: str | Path | None = None,
    progress: Progress = None,
    on_plan: Callable[[Plan], None] | None = None,
    before: Callable[[Model, Erasure], None] | None = None,
    track: Track = (),
    track_dir: str | Path = FOLDER,
    **settings: Any,
) -> Edit:
    """Fits an edit that erases concepts from a model; the model itself stays bit-identical.

    The memory of a training is planned first, and the training is refused if there is not enough.

    Args:
        model: the result of `efface.load`, or the name, folder or hub id of a model.
        what: a concept, several, or a whole request (`efface.Erasure`).
        method: a name (`efface list methods`), a class or an instance of Method.
        anchor: what the target becomes, for methods that use one.
        keep: concepts to keep, for methods that can use them.
        max_memory: the most memory that the run may need: bytes, or "8GB"; by default what is free.
        checkpoint: a file for the state of the training, which continues from it if it exists.
        progress: None shows a bar on a terminal, False nothing; or a function of (stage, done, total).
        on_plan: called with the memory plan of a training before it starts.
        before: called with the model and the request after all checks, before the work starts.
        track: where losses go, step by step: the name of one of accelerate's trackers, such as "tensorboard" or
            "wandb", or several names or instances.
        track_dir: the folder for trackers that write files.
        settings: arguments of the method, which override those that the model suggests.

    Returns:
        The edit: `edit.apply(model)` applies it within a `with` block, `edit.save(path)` writes it to one file.

    Raises:
        ValueError: a request, method, argument or model can't work, or the run does not fit in memory; the message says
            what would have worked.
        Diverged: a loss or gradient became NaN or infinite; its `edit` is the last good state.

    Example:
        >>> edit = efface.erase(efface.load("glyphs"), "cat", method="esd", steps=100)  # doctest: +SKIP
    """
    opening = open_later(model)
    erasure = build_request(opening.name, what, anchor, keep)
    from ..methods.base import Method
    from ..methods.configure import build_method

    if isinstance(method, Method):
        check_before_opening(method, erasure, max_memory, track, checkpoint)
    check_trackers(track, track_dir)
    opened = opening.open()
    chosen = build_method(method, opened, settings)
    limit = read_training_limit(chosen, max_memory)
    require_losses(chosen, track)
    require_steps(chosen, checkpoint)
    began, aside, resumed = time.monotonic(), 0.0, was_begun(checkpoint)
    with show_progress_with_steps(progress, opened) as report:

        def estimate(built: Trainer | None) -> None:
            nonlocal aside
            if built is not None:
                require_memory(built, limit, on_plan, report)
                built.tell_drawing(partial(report, "drawing what is trained on"))
            started = time.monotonic()
            if before:
                before(opened, erasure)
            aside = time.monotonic() - started

        if chosen.kind == "trained":
            take_fingerprint(opened, report)
        name = find_method_name(chosen)
        run, facts = f"erase-{name}-{to_file_name(erasure.targets)}", {"model": opened.name, "method": name}
        with open_trackers(track, run, {**facts, **asdict(erasure), **asdict(chosen)}, track_dir) as log:
            told = _tell_losses(name, report, log)
            edit = chosen.fit(opened, erasure, progress=told, checkpoint=checkpoint, estimate=estimate)
    return dataclasses.replace(edit, meta={**edit.meta, "cost": measure_cost(opened, began + aside, resumed)})


def check_before_opening(
    method: Method, erasure: Erasure, max_memory: str | int | None, track: Track, checkpoint: str | Path | None
) -> None:
    """Makes the checks of a method and a request that need no open model; raises ValueError as `erase`."""
    method.check(erasure)
    read_training_limit(method, max_memory)
    require_losses(method, track)
    require_steps(method, checkpoint)


def _tell_losses(name: str, report: Report, log: Log) -> Callable[..., None]:
    """A function that is called after each step: it reports the progress and sends the losses to the trackers."""

    def on_progress(done: int, of: int, **more: Any) -> None:
        report(f"erasing ({name})", done, of)
        if losses := name_losses(more):
            log(losses, done)

    return on_progress


def build_request(
    model: str, what: str | Erasure | Iterable[str], anchor: str = "", keep: str | Iterable[str] = ()
) -> Erasure:
    """Makes the whole request, in which an umbrella word is replaced by the things that it covers in the model's world.

    Raises:
        ValueError: there is no target, a concept is empty, repeated or also kept, a text has several concepts, or
            anchor or keep is given both in the request and beside it.
    """
    kept = (keep,) if isinstance(keep, str) else tuple(keep)
    asked = Erasure.of(what)
    for name, own, given in (("anchor", asked.anchor, anchor), ("keep", asked.keep, kept)):
        if own and given:
            raise ValueError(f"{name} is given in the Erasure ({own!r}) and beside it ({given!r}); leave one out")
    check_request(model, asked.targets, asked.keep or kept)
    return Erasure(expand(model, asked.targets), asked.anchor or anchor, asked.keep or kept)


def find_method_name(method: Method) -> str:
    """The catalogue's name of a method."""
    from ..catalog import METHODS

    return METHODS.get_name(method)


def read_training_limit(method: Method, given: str | int | None) -> int | None:
    """The bytes that a run may need; raises ValueError where the method has no training that could be planned."""
    from ..planning.machine import read_memory_limit

    limit = read_memory_limit(given)
    if limit is not None and method.kind != "trained":
        name = find_method_name(method)
        raise ValueError(f"only a training is planned beforehand, and {name} is {method.kind}: omit --max-memory")
    return limit


def require_losses(method: Method, track: Track) -> None:
    """Raises ValueError where a tracker is to follow a method that has no losses."""
    if track and method.kind in ("closed form", "inference time"):
        raise ValueError(
            f"only a training has losses to track, and {find_method_name(method)} is {method.kind}: omit --track; "
            "`efface evaluate --track` tracks the rates of its edit"
        )


def require_steps(method: Method, checkpoint: str | Path | None) -> None:
    """Raises ValueError where a checkpoint is named for a method that has no training to continue."""
    if checkpoint and method.kind in ("closed form", "inference time"):
        raise ValueError(
            f"only a training is continued from a file, and {find_method_name(method)} is {method.kind}: omit "
            "--checkpoint"
        )


def take_fingerprint(model: Model, report: Report) -> None:
    """Computes the fingerprint of a model's weights, which the model then caches."""
    stage = "taking the fingerprint of the weights"
    report(stage, 0, 1)
    model.fingerprint()
    report(stage, 1, 1)


def require_memory(built: Trainer, limit: int | None, on_plan: Callable[[Plan], None] | None, report: Report) -> None:
    """Plans the memory of a training; raises DoesNotFit, with the plan and what would fit, where it does not fit."""
    from ..planning.estimating import estimate, suggest_lighter
    from ..planning.machine import read_free_bytes
    from ..planning.plan import require_fit

    plan = estimate(built, partial(report, "planning memory"))
    if on_plan:
        on_plan(plan)
    require_fit(plan, limit or read_free_bytes(built.model.device), lambda: suggest_lighter(built, plan))
