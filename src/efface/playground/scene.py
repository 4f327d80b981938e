"""The scene that a playground draws, and the command line that draws the same pictures."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from ..edits.strength import check_strength

FOLDER = "out/play"
"""The folder to which the printed commands write."""


@final
@dataclass(frozen=True, kw_only=True)
class Scene:
    """One prompt, one seed, and the edits with which they are drawn."""

    model: str
    """The model, as `--model` takes it: a name, a folder, a file or a hub id."""
    prompt: str
    edits: tuple[tuple[str, float], ...] = ()
    """The file of each edit, with its strength."""
    seed: int = 0
    steps: int | None = None
    """Sampling steps; the model's own number by default."""
    guidance: float | None = None
    """Guidance; the model's own by default."""

    def __post_init__(self) -> None:
        """Raises ValueError where there is no model or a number is impossible."""
        if not self.model.strip():
            raise ValueError("no model: choose one, for example glyphs")
        if self.seed < 0 or (self.steps is not None and self.steps < 1):
            raise ValueError(f"a seed is at least 0 and steps are at least 1; got {self.seed} and {self.steps}")
        for _, strength in self.edits:
            check_strength(strength)
        if twice := sorted({file for file, _ in self.edits if [f for f, _ in self.edits].count(file) > 1}):
            raise ValueError(f"{twice[0]} is chosen twice; give its whole strength once")

    def describe_edits(self) -> str:
        """The edits in one line: "cat.safetensors, 0.5 of dog.safetensors"."""
        said = [file if strength == 1 else f"{strength:g} of {file}" for file, strength in self.edits]
        return ", ".join(said) or "no edit"


def read_scene(
    model: str | None,
    prompt: str | None,
    seed: float | None,
    steps: str | None,
    guidance: str | None,
    edits: Sequence[tuple[str | None, float | None]],
) -> Scene:
    """Reads a scene from the fields of a form; an empty field means the default, and edits without a file are ignored.

    Raises:
        ValueError: steps or guidance is no number, or `Scene` refuses the values.
    """
    given = [((file or "").strip(), 1.0 if strength is None else float(strength)) for file, strength in edits]
    count = _read_number("steps", steps)
    if count is not None and not count.is_integer():
        raise ValueError(f"steps is a whole number, or empty for the model's own; got {count:g}")
    return Scene(
        model=(model or "").strip(),
        prompt=prompt or "",
        edits=tuple((file, strength) for file, strength in given if file),
        seed=int(seed or 0),
        steps=None if count is None else int(count),
        guidance=_read_number("guidance", guidance),
    )


def _read_number(name: str, text: str | None) -> float | None:
    """The number of a field; None where it is empty."""
    if not (text or "").strip():
        return None
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} is a number, or empty for the model's own; got {text!r}")
    return number


def write_commands(scene: Scene, flags: Mapping[str, Any] | None = None) -> str:
    """Writes the commands, for a POSIX shell, that draw the scene without and with the edits.

    Args:
        scene: the scene.
        flags: options of `efface.load` that differ from its defaults, by name, such as {"dtype": "bf16"}.
    """
    edited = [word for file, _ in scene.edits for word in (_write_flag("edit", file),)]
    if any(strength != 1 for _, strength in scene.edits):
        edited += [_write_flag("strength", repr(float(strength))) for _, strength in scene.edits]
    lines = [_write_line(scene, [], "base", flags or {})]
    return "\n".join([*lines, _write_line(scene, edited, "edited", flags or {})] if scene.edits else lines)


def _write_line(scene: Scene, edits: Sequence[str], folder: str, flags: Mapping[str, Any]) -> str:
    numbers = {"seed": scene.seed, "steps": scene.steps, "guidance": scene.guidance}
    words = [_write_flag("model", scene.model), *edits, _write_flag("prompt", scene.prompt)]
    words += [_write_flag(name, str(value)) for name, value in numbers.items() if value is not None]
    words += [f"--{name}" if value is True else _write_flag(name, str(value)) for name, value in flags.items()]
    return " ".join(["efface draw", *words, _write_flag("out", f"{FOLDER}/{folder}"), "--overwrite"])


def _write_flag(name: str, value: str) -> str:
    """Writes a flag with its value, joined by "=" where the value would be read as another flag."""
    return f"--{name}={shlex.quote(value)}" if value.startswith("-") else f"--{name} {shlex.quote(value)}"
