"""`efface erase METHOD`: fit a method and save the edit."""

from __future__ import annotations

import dataclasses
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ..concept import Erasure
from . import glyphs
from .console import progress, result, say

if TYPE_CHECKING:
    from ..game import Edit, Method
    from ..models.base import Model


@dataclass(frozen=True, kw_only=True)
class Request:
    """Erase concepts from a model."""

    model: str
    """"glyphs", a diffusers folder, or a hub id."""
    target: tyro.conf.UseAppendAction[tuple[str, ...]]
    """A concept to erase; repeat the flag for several."""
    out: Path
    """File to write the edit to (.safetensors)."""
    anchor: str = ""
    """What the target becomes, for methods that use one."""
    keep: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A concept to hold in place, for methods that can; repeat the flag for several."""
    device: str | None = None
    """Where to work; a GPU where there is one."""
    checkpoint: Path | None = None
    """File to save the state of training to, and to go on from."""
    json: bool = False
    """Print the result as JSON."""

    def run(self, name: str, method: Method) -> None:
        erasure = Erasure(glyphs.expand(self.model, self.target), self.anchor, self.keep)
        method.check(erasure)
        from .. import load
        from ..store import check_writable

        check_writable(self.out)
        model = load(self.model, self.device)
        method.check(erasure, model)
        drawn = glyphs.check_target(self.model, model, erasure)
        with progress() as tell:
            edit = fit(model, erasure, method, self.out, self.checkpoint, lambda i, n: tell(f"erasing ({name})", i, n))
        edit.save(self.out)
        data = {"edit": str(self.out), "method": name, "targets": list(erasure.targets), "base_draws_target": drawn}
        result(data, self.json, f"{', '.join(erasure.targets)} erased with {name}: {self.out}")


@dataclass(frozen=True)
class Erase(Request):
    """Erase concepts from a model; `efface erase METHOD --help` lists the method's own flags."""

    method: tyro.conf.Positional[str]
    """Name of the method, before all flags; `efface list methods` lists them."""

    def run(self) -> None:  # type: ignore[override]
        raise ValueError(f"write the method first: efface erase {self.method} …")


def fit(
    model: Model, erasure: Erasure, method: Method, out: Path, checkpoint: Path | None, tell: Callable[[int, int], None]
) -> Edit:
    """Fit, and note what it took; a training that leaves the numbers keeps its last good state beside `out`."""
    from ..game import Diverged, Edit

    began = time.monotonic()
    try:
        edit = method.fit(model, erasure, progress=lambda i, n, **_: tell(i, n), checkpoint=checkpoint)
        return Edit(edit.values, {**edit.meta, "cost": cost(model, began)})
    except Diverged as error:
        kept = error.edit.save(out.with_name(f"{out.stem}.last-good.safetensors"))
        raise ArithmeticError(f"{error}; the last good state is in {kept}") from error


def cost(model: Model, began: float) -> dict[str, float]:
    """Seconds since `began`, and the most memory held until now where it can be told: on a GPU the GPU's."""
    spent = {"seconds": round(time.monotonic() - began, 3)}
    if model.device.type == "cuda":
        import torch

        return {**spent, "peak_memory_mb": round(torch.cuda.max_memory_allocated(model.device) / 2**20)}
    if sys.platform == "win32":
        return spent
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {**spent, "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)}


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
    from ..models import BUNDLED

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
