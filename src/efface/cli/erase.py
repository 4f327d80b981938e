"""`efface erase METHOD`: fit a method and save the edit."""

from __future__ import annotations

import dataclasses
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, final

import tyro

from ..concept import Erasure
from . import glyphs
from .console import progress, result, say, writable_folder
from .loading import Flags, Loading

if TYPE_CHECKING:
    from ..edits.edit import Edit
    from ..methods.base import Method, Trained
    from ..models.base import Model
    from ..training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class Request:
    """Erase concepts from a model."""

    model: str
    """A name (`efface list models`), a diffusers folder, a file FILE.safetensors@FOLDER, or a hub id."""
    target: tyro.conf.UseAppendAction[tuple[str, ...]]
    """A concept to erase; repeat the flag for several."""
    out: Path
    """File to write the edit to (.safetensors)."""
    anchor: str = ""
    """What the target becomes, for methods that use one."""
    keep: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A concept to hold in place, for methods that can; repeat the flag for several."""
    loading: Flags = dataclasses.field(default_factory=Loading)
    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    store: Path | None = None
    """Folder to keep drawn trajectories in; a later run that asks for the same ones reads them."""
    store_memory: str = ""
    """Trajectories held in memory at most, such as 8GB; 2 GiB by default. What is beyond lies on disk."""
    draw_batch: int = 0
    """Pictures drawn at once to train on: fewer take less memory; 0 is 32, fewer where latents are large."""
    max_memory: str = ""
    """Refuse a run that needs more than this, such as 8GB; by default more than is free."""
    checkpoint: Path | None = None
    """File to save the state of training to, and to go on from."""
    json: bool = False
    """Print the result as JSON."""

    def run(self, name: str, method: Method) -> None:
        glyphs.check_request(self.model, self.target, self.keep)
        erasure = Erasure(glyphs.expand(self.model, self.target), self.anchor, self.keep)
        method.check(erasure)
        from ..files import check_writable
        from ..planning.machine import read_size
        from ..training.distributed import join_process_group

        limit = read_size(self.max_memory) if self.max_memory else None
        if limit and method.kind != "trained":
            raise ValueError(f"only a training is planned beforehand, and {name} is {method.kind}: omit --max-memory")
        for file in (self.out, self.checkpoint):
            if file:
                check_writable(file)
        if self.store:
            writable_folder(self.store)
        with join_process_group(self.loading.device) as group:
            model = self.opened()
            fitting = ready(model, erasure, method, limit)
            drawn = glyphs.check_target(self.model, model, erasure)
            with progress(group.is_main) as on_progress:
                edit = fitting.fit(self.out, self.checkpoint, partial(on_progress, f"erasing ({name})"))
            if not group.is_main:
                return
            edit.save(self.out)
        data = {"edit": str(self.out), "method": name, "targets": list(erasure.targets), "base_draws_target": drawn}
        result(data, self.json, f"{', '.join(erasure.targets)} erased with {name}: {self.out}")

    def opened(self) -> Model:
        """The model, set up as the flags say."""
        from ..planning.machine import read_size

        bound = read_size(self.store_memory) if self.store_memory else None
        return self.loading.opened(
            self.model,
            checkpointing=self.checkpointing,
            store=self.store,
            store_bound=bound,
            draw_batch=self.draw_batch,
        )


@dataclass(frozen=True)
class Erase(Request):
    """Erase concepts from a model; `efface erase METHOD --help` lists the method's own flags."""

    method: tyro.conf.Positional[str]
    """Name of the method, before all flags; `efface list methods` lists them."""

    def run(self) -> None:  # type: ignore[override]
        raise ValueError(f"write the method first: efface erase {self.method} …")


@final
@dataclass(frozen=True)
class Fitting:
    """A method about to be fitted: what can be refused beforehand has been."""

    model: Model
    play: Callable[..., Edit]
    """The fit itself, of `progress` and `checkpoint`."""
    seconds: float
    """That it took to set up."""

    def fit(self, out: Path, checkpoint: Path | None, on_progress: Callable[[int, int], None]) -> Edit:
        """The edit, with what it cost; a training that leaves the numbers keeps its last good state beside `out`."""
        from ..edits.edit import Edit
        from ..training.trainer import Diverged

        began = time.monotonic() - self.seconds
        try:
            edit = self.play(progress=partial(_told, on_progress), checkpoint=checkpoint)
            return Edit(edit.values, {**edit.meta, "cost": cost(self.model, began)})
        except Diverged as error:
            kept = error.edit.save(out.with_name(f"{out.stem}.last-good.safetensors"))
            raise ArithmeticError(f"{error}; the last good state is in {kept}") from error


def ready(model: Model, erasure: Erasure, method: Method, limit: int | None = None) -> Fitting:
    """Set a fit up, a training after saying what it will take.

    Raises:
        ValueError: the method cannot do it, or needs more than `limit` bytes, or than there are; says what would work.
    """
    from ..methods.base import Trained

    began = time.monotonic()
    if isinstance(method, Trained):
        trainer = foreseen(method, model, erasure, limit)
        return Fitting(
            model, lambda **how: method.finish(trainer.train(**how), erasure), seconds=time.monotonic() - began
        )
    method.check(erasure, model)
    return Fitting(model, partial(method.fit, model, erasure), seconds=time.monotonic() - began)


def foreseen(method: Trained, model: Model, erasure: Erasure, limit: int | None) -> Trainer:
    """The training, set up, after saying what it will take; ValueError where that is not to be had."""
    from ..planning.machine import read_free_bytes
    from ..planning.plan import build_for_planning, estimate, require_fit, suggest_lighter
    from ..training.distributed import process_group

    with progress(process_group().is_main) as on_progress:
        on_progress("taking the fingerprint of the weights", 0, 1)
        model.fingerprint()
        on_progress("taking the fingerprint of the weights", 1, 1)
        trainer = build_for_planning(lambda: method.build_trainer(model, erasure), model.device)
        plan = estimate(trainer, partial(on_progress, "planning memory"))
    if process_group().is_main:
        say(f"this run takes, at most:\n{plan.table()}")
    require_fit(plan, limit or read_free_bytes(model.device), lambda: suggest_lighter(trainer, plan))
    return trainer


def _told(on_progress: Callable[[int, int], None], done: int, of: int, **_: Any) -> None:
    on_progress(done, of)


def cost(model: Model, began: float) -> dict[str, float]:
    """Seconds since `began`, and the most memory held until now where it can be told: on a GPU the GPU's."""
    spent = {"seconds": round(time.monotonic() - began, 3)}
    if model.device.type == "cuda":
        import torch

        return {**spent, "peak_memory_mb": round(torch.cuda.max_memory_allocated(model.device) / 2**20)}
    from ..planning.machine import read_resident_peak

    peak = read_resident_peak()
    return spent if peak is None else {**spent, "peak_memory_mb": round(peak / 2**20)}


def parse(name: str, args: Sequence[str], config: Sequence[Any]) -> Callable[[], None]:
    """Read the flags of `erase` and of one method, whose defaults are those suggested for the model."""
    from ..methods import get, named

    name = named(name)  # refuses an unknown method before torch is imported
    kind = get(name)
    suggested = suggestions(name, _given_model(args))
    flags = dataclasses.make_dataclass(
        "flags",
        [
            ("request", Annotated[Request, tyro.conf.arg(name="")]),
            ("method", Annotated[kind, tyro.conf.arg(name="")], dataclasses.field(default=kind(**suggested))),
        ],
        frozen=True,
    )
    about = f"Erase concepts from a model with {kind.__name__}. {kind.__doc__}"
    given = tyro.cli(flags, prog=f"efface erase {name}", description=about, args=list(args), config=tuple(config))
    if suggested:
        say("defaults for this model: " + ", ".join(f"{k} = {v}" for k, v in suggested.items()))
    return lambda: given.request.run(name, given.method)


def suggestions(name: str, model: str) -> dict[str, Any]:
    """A bundled model's own values for a method's arguments."""
    from ..methods import suggestion
    from ..models.loading import BUNDLED

    file = BUNDLED / model / "defaults.toml"
    if not model or "/" in model or not file.is_file():
        return {}
    return suggestion(name, tomllib.loads(file.read_text(encoding="utf-8")).get("method", {}))


def _given_model(args: Sequence[str]) -> str:
    """The value of --model, before the flags that depend on it are known."""
    for flag, value in zip(args, [*args[1:], ""], strict=True):
        if flag == "--model":
            return value
        if flag.startswith("--model="):
            return flag.partition("=")[2]
    return ""
