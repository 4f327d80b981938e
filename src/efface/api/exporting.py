"""`efface.export`: writes an edit for other tools, and checks the file with their own loaders."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final, get_args

from ..concept import check_choice
from ..edits.strength import check_strength
from ..files import check_file, check_room, hash_file, make_scratch, read_json, write_tensors, write_whole
from ..interchange.formats import WHOLE, Format
from ..models.loading import RECORD
from .handing_on import hide_folder, hide_model_folder, save_folder
from .memory import with_memory_advice
from .resources import open_later

if TYPE_CHECKING:
    from ..edits.edit import Edit
    from ..interchange.checks import Check, Probe
    from ..interchange.factors import RankChoice
    from ..models.base import Model

Dtype = Literal["fp32", "fp16", "bf16"]
STEPS = 20
"""The largest number of sampling steps of the pictures that are compared."""


@final
@dataclass(frozen=True)
class Exported:
    """An exported file with the result of its check."""

    path: Path
    sidecar: Path
    """A JSON file beside it (or in it, for a folder) with `about` and the edit's record."""
    format: Format
    about: dict[str, Any]
    """In JSON's types: target, method, base, rank, what is left out or rounded away, reader, the pictures' gap …"""


@final
@dataclass(frozen=True)
class _Job:
    """What is exported, in which form, and where to."""

    model: Model
    edit: Edit
    given: Edit | str | Path
    """The edit as the caller named it; a file is hashed as it is."""
    place: Path
    kind: Any
    strength: float
    probe: Probe | None
    """The pictures to compare; None compares weights alone."""


@with_memory_advice
def export(
    model: Model | str | Path,
    edit: Edit | str | Path,
    out: str | Path,
    *,
    format: Format | None = None,
    dtype: Dtype = "fp32",
    strength: float = 1.0,
    rank: int | None = None,
    energy: float | None = None,
    pictures: int = 2,
) -> Path:
    """Writes an edited model, or the edit alone as a LoRA, in a format of other tools.

    Before the file gets its name, its reader loads it, every weight is compared, and a few pictures are compared with
    the edit's; if that fails, nothing is written.

    Args:
        model: the base that the edit was made for; a named model is opened on the CPU.
        edit: the result of `efface.erase`, or its file.
        out: a folder (`diffusers`), or a file that ends in .safetensors; it must not exist yet, and is returned.
        format: `diffusers`, a folder with the whole model; `single-file`, the whole model in the original layout;
            `lora`, diffusers' and PEFT's; `kohya`, as most interfaces load it; `comfy`, kohya's names, in which dense
            changes are exact. By default the name of `out` decides between the first two.
        dtype: the precision of the written weights.
        strength: the strength of the edit in the file.
        rank: the rank of a dense change's product in a LoRA; a low-rank edit keeps its own.
        energy: the share of each dense change's squared norm that the product keeps, instead of a rank; .99 by default.
        pictures: the number of pictures that are compared; 0 compares weights alone.

    Raises:
        FileExistsError: `out` or the file beside it exists.
        ValueError: the name does not suit the format, the edit is a guide or of another base, a strength, rank or
            energy is impossible, the format has no names for the architecture, or the reader reads something else.
        OSError: it can't be written.
    """
    return write_export(
        model, edit, out, format=format, dtype=dtype, strength=strength, rank=rank, energy=energy, pictures=pictures
    ).path


def write_export(
    model: Model | str | Path,
    edit: Edit | str | Path,
    out: str | Path,
    *,
    format: Format | None = None,
    dtype: Dtype = "fp32",
    strength: float = 1.0,
    rank: int | None = None,
    energy: float | None = None,
    pictures: int = 2,
) -> Exported:
    """Does what `export` does, with the same arguments and errors, and also returns the result of the check."""
    check_strength(strength)
    place = Path(out)
    check_choice("dtype", dtype, get_args(Dtype))
    check_choice("format", format or "diffusers", get_args(Format))
    kind = format or ("single-file" if place.suffix == ".safetensors" else "diffusers")
    sidecar = place / RECORD if kind == "diffusers" else place.with_suffix(".json")
    _check_place(place, sidecar, kind)
    from ..edits.edit import Edit
    from ..interchange.factors import RankChoice
    from ..interchange.fitting import check_format
    from ..models.quantised import refuse_export
    from .erasing import load

    choice = RankChoice(rank, energy)
    if kind in WHOLE and choice.given:
        raise ValueError(
            f"--rank and --energy are for LoRA files; --format {kind} holds the whole model, so leave them out"
        )
    if pictures < 0:
        raise ValueError(f"--pictures is a number of pictures, 0 or more, got {pictures}")
    check_file(place)
    opening = open_later(model)
    found = edit if isinstance(edit, Edit) else Edit.load(edit)
    found.check_exportable()  # before the base is opened
    named = isinstance(model, str | Path)
    opened = load(str(model), "cpu", dtype if kind in WHOLE else "fp32") if named else opening.open()
    refuse_export(opened.name, opened.quantised)
    check_format(opened, found, kind, choice)
    if kind in WHOLE:
        check_room(place, _count_bytes(opened, kind))
    probe = _choose_probe(opened, found, pictures) if pictures else None
    job = _Job(opened, found, edit, place, kind, strength, probe)
    about = _export_whole(job) if kind in WHOLE else _export_lora(job, choice, dtype)
    return Exported(place, sidecar, kind, about)


def _count_bytes(model: Model, kind: Format) -> int:
    """The bytes that an export of the whole model takes at least: those of its weights, without the autoencoder's."""
    from ..interchange.original import PREFIXES

    alone = kind == "single-file" and model.architecture in PREFIXES  # such a file holds no text encoder
    held = [w for name, w in model.weights.items() if not alone or name.startswith(f"{model.denoiser}.")]
    return sum(weight.nbytes for weight in held)


def _check_place(place: Path, sidecar: Path, kind: Format) -> None:
    if place.exists():
        what = "folder" if kind == "diffusers" else "file"
        raise FileExistsError(f"{place} exists already; name a {what} that does not")
    if (kind == "diffusers") == (place.suffix == ".safetensors"):
        wants = "a folder, or --format single-file" if kind == "diffusers" else "a file that ends in .safetensors"
        raise ValueError(f"--out {place} does not suit --format {kind}; name {wants}")
    if sidecar.exists() and not _is_orphan(sidecar):
        raise FileExistsError(f"{sidecar}, which would describe the export, exists already; name another file")


def _is_orphan(sidecar: Path) -> bool:
    """Whether it describes an export that does not exist, because the process was killed between the two files."""
    try:
        held = read_json(sidecar)
    except (OSError, ValueError):
        return False
    return isinstance(held, dict) and {"format", "strength_in_file", "recommended_strength"} <= held.keys()


def _choose_probe(model: Model, edit: Edit, pictures: int) -> Probe:
    """The most telling prompts: the erased concepts, the anchor, the kept concepts, and the empty prompt."""
    from ..interchange.checks import Probe

    asked = edit.meta.get("request") or {}
    words = [*asked.get("targets", ()), asked.get("anchor", ""), *asked.get("keep", ()), ""]
    prompts = list(dict.fromkeys(words))
    repeated = [prompts[i % len(prompts)] for i in range(pictures)]
    return Probe(repeated, min(STEPS, model.defaults.steps), model.defaults.guidance)


def _export_whole(job: _Job) -> dict[str, Any]:
    from ..interchange import checks, original
    from ..interchange.rounding import measure_rounding
    from ..models.adapters import single_file

    model, edit, place, kind = job.model, job.edit, job.place, job.kind
    rounded = measure_rounding(model, edit, job.strength).to_json("rounded_away")
    with _make_scratch(place) as scratch:
        about = _describe(job, str(model.dtype).removeprefix("torch."), scratch) | rounded
        made = scratch / place.name
        with edit.apply(model, job.strength):
            record = {"model": hide_folder(model.name), "strength": job.strength, "edit": hide_model_folder(edit)}
            if kind == "diffusers":
                save_folder(model, made, record)
            else:
                save = original.save_original if model.architecture in original.PREFIXES else single_file.save
                save(model, made, record)
        own = original.check_file if model.architecture in original.PREFIXES else checks.check_single_file
        check = checks.check_folder if kind == "diffusers" else own
        about |= _tell(check(model, edit, made, job.strength, job.probe))
        if kind == "diffusers":
            about = {**read_json(made / RECORD), **about}
            write_whole(made / RECORD, _format_json(about))
        _hand_over(made, place, None if kind == "diffusers" else _format_json(about))
    return about


def _export_lora(job: _Job, choice: RankChoice, dtype: Dtype) -> dict[str, Any]:
    from ..interchange import checks, reading
    from ..interchange.lora import package
    from ..models import consumer
    from ..models.fingerprint import CASTS

    model, edit, place, kind = job.model, job.edit, job.place, job.kind
    packed = package(model, edit, kind, choice, job.strength, CASTS[dtype])
    low, high = packed.ranks
    with _make_scratch(place) as scratch:
        about = _describe(job, dtype, scratch) | {
            "rank": high,
            "lowest_rank": low,
            **packed.residual.to_json("residual"),
            "left_out": list(packed.left_out),
            "exact": len(packed.exact),
        }
        facts = {**about, "kind": "lora", "edit": hide_model_folder(edit)}
        made = write_tensors(scratch / place.name, packed.tensors, facts)
        if checks.reads(model, kind, bool(packed.exact)):
            consumer.check_reader(model)
            about |= _tell(checks.check_lora(model, edit, kind, packed, made, job.strength, job.probe))
        else:
            about |= _tell(reading.check_own(model, edit, packed, made, job.strength, job.probe))
        _hand_over(made, place, _format_json(about))
    return about


def _hash_edit(edit: Edit | str | Path, scratch: Path) -> str:
    """The sha256 of the edit's file, or of the file that it would be saved to, as in an evaluation."""
    if isinstance(edit, str | Path):
        return hash_file(edit)
    saved = edit.save(scratch / "of-the-edit.safetensors")
    digest = hash_file(saved)
    saved.unlink()
    return digest


def _describe(job: _Job, dtype: str, scratch: Path) -> dict[str, Any]:
    model, edit, asked = job.model, job.edit, job.edit.meta.get("request") or {}
    return {
        "format": job.kind,
        "target": list(asked.get("targets", ())),
        "anchor": asked.get("anchor", ""),
        "method": edit.meta.get("method", ""),
        "model": hide_folder(model.name),
        "base": dict(edit.meta.get("base", {})),
        "strength_in_file": job.strength,
        "recommended_strength": 1.0,
        "dtype": dtype,
        "edit_sha256": _hash_edit(job.given, scratch),
        **model.describe_use(),
    }


def _tell(check: Check) -> dict[str, Any]:
    return {"reader": check.reader, "matched": check.matched, "gap": asdict(check.gap) if check.gap else None}


def _format_json(about: dict[str, Any]) -> str:
    return json.dumps(about, indent=1, ensure_ascii=False) + "\n"


@contextmanager
def _make_scratch(place: Path) -> Iterator[Path]:
    """Makes a temporary folder beside the export's place, in which it has its final name; it is removed afterwards."""
    made = make_scratch(place)
    try:
        yield made
    except OSError as error:
        raise OSError(f"cannot write {place}: {error.strerror or str(error).rpartition(': ')[2]}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _hand_over(made: Path, place: Path, sidecar: str | None) -> None:
    """Gives the description and then the export their names, so that an export always has its description."""
    if sidecar is not None:
        write_whole(place.with_suffix(".json"), sidecar)
    os.rename(made, place)
