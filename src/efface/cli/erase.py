"""`efface erase METHOD`: fit a method and save the edit."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_type_hints

import tyro

from ..api.progress import Report
from ..api.resources import LazyModel, check_target
from ..concept import Erasure, fits
from ..files import check_file, check_folder
from ..source import SourceField, Unreadable, read_field_docs, read_fields, read_traits
from .console import print_result, say, show_progress, tell_plan
from .loading import Loading

if TYPE_CHECKING:
    from ..edits.edit import Edit
    from ..methods.base import Method
    from ..models.base import Model
    from ..planning.plan import Plan


@dataclass(frozen=True, kw_only=True)
class What:
    """What is erased, and from which model."""

    model: str
    """A name (`efface list models`), a diffusers folder, a file FILE.safetensors@FOLDER, or a hub id."""
    target: tyro.conf.UseAppendAction[tuple[str, ...]]
    """A concept to erase: required; repeat the flag for several."""
    anchor: str = ""
    """The concept that replaces the target, for methods that use one."""
    keep: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A concept to preserve, for methods that can; repeat the flag for several."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Memory that training may use, and what it stores for later runs."""

    max_memory: str = ""
    """Refuse a run that needs more memory than this, such as 8GB; by default one that needs more than is free."""
    checkpointing: bool = False
    """Recompute activations in the backward pass, which needs less memory and about a third more time."""
    store: Path | None = None
    """Folder to keep drawn trajectories in; a later run that asks for the same ones reads them."""
    store_memory: str = ""
    """Most memory for drawn trajectories, such as 8GB; 2 GiB by default. Further ones are stored on disk."""
    draw_batch: int = 0
    """Number of training pictures or trajectories drawn at once; fewer need less memory. 0 means 32, or fewer where
    latents are large."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """What is written."""

    out: Path
    """File to write the edit to (.safetensors)."""
    overwrite: bool = False
    """Replace the file of --out if it exists."""
    checkpoint: Path | None = None
    """File to which the state of training is saved, and from which a stopped training continues."""
    track: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Where the losses of each step are logged: tensorboard (extra `track`), wandb or another of accelerate's
    trackers; repeat the flag for several."""
    track_dir: Path = Path("runs")
    """Folder for trackers that write files."""
    json: bool = False
    """Print the result as JSON."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Erase concepts from a model."""

    request: What
    output: Output
    memory: Memory = dataclasses.field(default_factory=Memory)
    loading: Loading = dataclasses.field(default_factory=Loading)

    def run(self, name: str, method: Method, given: Mapping[str, Any]) -> None:
        """Erases by a method of this name.

        Args:
            name: the method's name.
            method: the method with all flags, for checks before the model is opened.
            given: the flags that were given, by field; for the others the opened model's suggestions come first.
        """
        from ..training.distributed import join_process_group

        self.check_places()
        drawn: list[float | None] = []

        def look(model: Model, erasure: Erasure) -> None:
            if group.is_main:
                tell_suggestions(name, model, given)
            drawn.append(check_target(self.request.model, model, erasure, report))

        with join_process_group(self.loading.device) as group, show_progress(group.is_main) as report:
            edit = self.erase(name, method, given, report, tell_plan if group.is_main else None, look)
            if not group.is_main:
                return
            edit.save(self.output.out)
        targets = edit.meta["request"]["targets"]
        data = {"edit": str(self.output.out), "method": name, "targets": targets, "base_draws_target": drawn[0]}
        print_result(data, self.output.json, f"{', '.join(targets)} erased with {name}: {self.output.out}")

    def erase(
        self,
        name: str,
        method: Method,
        given: Mapping[str, Any],
        report: Report,
        on_plan: Callable[[Plan], None] | None,
        before: Callable[[Model, Erasure], None],
    ) -> Edit:
        """Fits the edit; a training that diverges saves its last good state beside `out`."""
        from ..api.erasing import build_request, check_before_opening, erase
        from ..training.diverged import Diverged

        asked = self.request
        erasure = build_request(asked.model, asked.target, asked.anchor, asked.keep)
        check_before_opening(method, erasure, self.memory.max_memory, self.output.track, self.output.checkpoint)
        try:
            return erase(
                LazyModel(asked.model, self.open_model),
                erasure,
                name,
                max_memory=self.memory.max_memory,
                checkpoint=self.output.checkpoint,
                progress=report,
                on_plan=on_plan,
                before=before,
                track=self.output.track,
                track_dir=self.output.track_dir,
                **given,
            )
        except Diverged as error:
            kept = error.edit.save(self.output.out.with_name(f"{self.output.out.stem}.last-good.safetensors"))
            raise ArithmeticError(f"{error}; the last good state is in {kept}") from error

    def check_places(self) -> None:
        """Raises, before any work, ValueError or OSError for a name of no model or a result that can't be written.

        A result that would replace another is refused too, unless --overwrite allows it.
        """
        from ..models.loading import check_model_name

        check_model_name(self.request.model)
        out = self.output.out
        if out.suffix != ".safetensors":
            raise ValueError(f"--out {out} must end in .safetensors, for example {out.stem}.safetensors")
        if out.exists() and not self.output.overwrite:
            raise FileExistsError(f"{out} exists already; name another file, or add --overwrite")
        for file in (out, self.output.checkpoint):
            if file:
                check_file(file)
        if self.memory.store:
            check_folder(self.memory.store)

    def open_model(self) -> Model:
        """Opens the model as the flags say."""
        from ..planning.machine import read_size

        bound = read_size(self.memory.store_memory) if self.memory.store_memory else None
        return self.loading.open_model(
            self.request.model,
            checkpointing=self.memory.checkpointing,
            store=self.memory.store,
            store_bound=bound,
            draw_batch=self.memory.draw_batch,
        )


@dataclass(frozen=True, kw_only=True)
class Erase(Request):
    """Erase concepts from a model; `efface erase METHOD --help` lists the method's own flags."""

    kept: ClassVar[str] = (
        "what --checkpoint FILE and --store DIR hold is kept, and the same command continues from there; without them "
        "nothing is"
    )
    example: ClassVar[str] = "efface erase eap --model glyphs --target cat --out cat.safetensors"
    method: tyro.conf.Positional[str]
    """Name of the method, before all flags; `efface list methods` lists them."""

    def run(self) -> None:  # type: ignore[override]
        raise ValueError(f"write the method first: efface erase {self.method} …")


def parse(name: str, args: Sequence[str], config: Sequence[Any]) -> Callable[[], None]:
    """Reads the flags of `erase` and of one method, whose defaults are those suggested for the model.

    The method's class is imported when the flags are understood, so that help and a misspelled flag need no torch.
    """
    from ..catalog import METHODS
    from ..methods import find_name, get, suggest_for_bundled

    name = find_name(name)
    suggested, own = suggest_for_bundled(name, _read_model(args)), METHODS.find_entry(name).written
    groups = list_flags(name, suggested)
    factory = {part: dataclasses.field(default_factory=part) for part in (Memory, Loading)}
    first, last = [("request", What), ("output", Output)], [("memory", Memory), ("loading", Loading)]
    fields = [*first, *groups, *((name, part, factory[part]) for name, part in last)]
    flags = dataclasses.make_dataclass("flags", fields, frozen=True, kw_only=True)
    said = ast.get_docstring(own.node) or ""
    about = f"Erase concepts from a model with {own.name}. {said}\n\n{_give_example(name, read_traits(own))}"
    given = tyro.cli(flags, prog=f"efface erase {name}", description=about, args=list(args), config=tuple(config))
    chosen = {key: value for group, _, _ in groups for key, value in vars(getattr(given, group)).items()}
    request = Request(**{name: getattr(given, name) for name, _ in (*first, *last)})
    request.check_places()  # before anything is told that would be for nothing
    if suggested:
        _say_defaults(suggested)
    named = {field: _name_flag(name, field) for field in chosen}
    typed = {word.partition("=")[0].replace("_", "-") for word in args if word.startswith("--")}
    own_words = {k: v for k, v in chosen.items() if {f"--{named[k]}", f"--no-{named[k]}"} & typed}
    return lambda: request.run(name, get(name)(**chosen), own_words)


def tell_suggestions(name: str, model: Model, given: Mapping[str, Any]) -> None:
    """Prints settings that the opened model suggests, except those that were printed before it was opened."""
    from ..methods import suggest_for_bundled, suggest_settings

    told = suggest_for_bundled(name, model.name)
    if more := {k: v for k, v in suggest_settings(name, model).items() if k not in told and k not in given}:
        _say_defaults(more)


def _say_defaults(suggested: Mapping[str, Any]) -> None:
    say("defaults for this model: " + ", ".join(f"{k} = {v}" for k, v in suggested.items()))


def _name_flag(method: str, field: str) -> str:
    """Returns the flag of a method's field; the method's name precedes it where `erase` has a flag of the same name."""
    taken = {own.name for part in (What, Output, Memory, Loading) for own in dataclasses.fields(part)}
    return (f"{method}_{field}" if field in taken else field.removesuffix("_")).replace("_", "-")


def list_flags(name: str, suggested: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Lists a method's arguments as two groups of flags, the method's own and those of its training.

    `suggested` replaces defaults. Where `erase` has a flag of the same name, the method's name precedes the flag, as in
    `--ac-variant`.
    """
    groups: dict[str, list[tuple[str, Any, Any]]] = {"method": [], "training": []}
    for field in list_fields(name):
        told = tyro.conf.arg(name=_name_flag(name, field.name), help=field.about)
        default = dataclasses.field(default=suggested.get(field.name, field.default))
        groups["method" if field.own else "training"].append((field.name, Annotated[field.type, told], default))
    made = {group: dataclasses.make_dataclass(group, some, frozen=True) for group, some in groups.items() if some}
    return [(group, cls, dataclasses.field(default_factory=cls)) for group, cls in made.items()]


def list_fields(name: str) -> list[SourceField]:
    """Reads a method's fields from its source, or, where the source does not say enough, from its imported class."""
    from ..catalog import METHODS

    entry = METHODS.find_entry(name)
    try:
        fields = read_fields(entry.written)
        if not all(fits(field.default, field.type) for field in fields):
            METHODS.get(name)  # which refuses the class, with the reason
        return fields
    except Unreadable:
        kind = METHODS.get(name)
        hints, docs = get_type_hints(kind, include_extras=True), read_field_docs(entry.written)
        given = vars(kind).get("__annotations__", {})
        return [
            SourceField(f.name, hints[f.name], getattr(kind, f.name), docs.get(f.name, ""), f.name in given)
            for f in dataclasses.fields(kind)
        ]


def _give_example(name: str, known: Mapping[str, Any]) -> str:
    anchor = " --anchor dog" if known.get("needs_anchor") else ""
    return f"Example:\n  efface erase {name} --model glyphs --target cat{anchor} --out cat.safetensors"


def _read_model(args: Sequence[str]) -> str:
    """Reads the value of --model, because other flags depend on it."""
    for flag, value in zip_longest(args, args[1:], fillvalue=""):
        if flag == "--model":
            return value
        if flag.startswith("--model="):
            return flag.partition("=")[2]
    return ""
