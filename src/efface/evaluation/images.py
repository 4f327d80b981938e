"""Pictures drawn once: fixed chunks of rows of one guidance, each a folder that is there whole or not at all.

A chunk's folder is named by the hash of everything that decides its pictures, a picture by the hash of its file. So an
interrupted drawing goes on at the first missing chunk, a damaged picture is noticed and its chunk drawn again, and
several evaluations that share an album draw the untouched base once.
"""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..files import hash_bytes, hash_json, new_folder
from ..models.trajectory import Sampler
from ..records.report import Drawing
from ..suites.spec import Row

Progress = Callable[[int, int], None]


class Draws(Protocol):
    """The part of a Model that drawing needs."""

    def images(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int | None,
        guidance: float | None,
        batch: int,
        sampler: Sampler,
    ) -> Tensor: ...


def chunks(rows: Sequence[Row], resolution: int) -> list[Sequence[Row]]:
    """Rows cut into the fixed pieces that are drawn together."""
    size = batch_of(resolution)
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def batch_of(resolution: int) -> int:
    """Pictures drawn at once: few of large ones, for memory's sake."""
    return 64 if resolution <= 128 else 4


def digest(value: Any) -> str:
    """sha256 of a value's JSON form, shortened to 32 digits."""
    return hash_json(value)[:32]


def chunk_key(rows: Sequence[Row], drawing: Drawing) -> str:
    decides = drawing.model_dump(exclude={"model"} if drawing.edit else {"model", "strength"})
    return digest({"drawing": decides, "pictures": [[r.prompt, r.seed] for r in rows]})


def portions(rows: Sequence[Row], drawing: Drawing) -> list[tuple[Drawing, Sequence[Row]]]:
    """The chunks that are drawn together, each with the guidance that its rows ask for or else the drawing's own."""
    guidances = [drawing.guidance if r.guidance is None else r.guidance for r in rows]
    out = []
    for guidance in dict.fromkeys(guidances):
        alike = [r for r, g in zip(rows, guidances, strict=True) if g == guidance]
        how = drawing.model_copy(update={"guidance": guidance})
        out += [(how, part) for part in chunks(alike, drawing.resolution)]
    return out


def draw(
    model: Draws,
    rows: Sequence[Row],
    drawing: Drawing,
    album: Path,
    progress: Progress | None = None,
    sampler: Sampler = "own",
) -> dict[str, str]:
    """Draw every chunk that is not in the album yet, with the model as it now is.  `sampler`: the one `drawing` names.

    Returns:
        The path of each row's picture within the album, by the row's id.
    """
    paths: dict[str, str] = {}
    done = 0
    for how, part in portions(rows, drawing):
        key = chunk_key(part, how)
        files = intact(album / key)
        if files is None:
            made = model.images(
                [r.prompt for r in part],
                [r.seed for r in part],
                steps=how.steps,
                guidance=how.guidance,
                batch=len(part),
                sampler=sampler,
            )
            files = write(album / key, made, part)
        paths.update({row.id: f"{key}/{file}" for row, file in zip(part, files, strict=True)})
        done += len(part)
        if progress:
            progress(done, len(rows))
    return paths


def write(folder: Path, images: Tensor, rows: Sequence[Row]) -> list[str]:
    """Write a chunk under a temporary name, then rename it.  `images`: uint8 [n, 3, h, w]."""
    files = []
    with new_folder(folder, replace=True) as made:
        for image in images:
            data = png(image)
            files.append(f"{hash_bytes(data)[:32]}.png")
            (made / files[-1]).write_bytes(data)
        listed = [{"prompt": r.prompt, "seed": r.seed, "file": f} for r, f in zip(rows, files, strict=True)]
        (made / "chunk.json").write_text(json.dumps(listed, ensure_ascii=False, indent=1), encoding="utf-8")
    return files


def intact(folder: Path) -> list[str] | None:
    """The files of a chunk, in the order of its rows; None where it is missing or any picture is damaged."""
    try:
        files = [p["file"] for p in json.loads((folder / "chunk.json").read_text(encoding="utf-8"))]
        whole = all(picture(folder / f) for f in files)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return files if whole else None


def picture(path: Path) -> bytes:
    """The bytes of a picture's file; ValueError where they are not those that its name is the hash of."""
    data = path.read_bytes()
    if hash_bytes(data)[:32] != path.stem:
        raise ValueError(f"{path} is damaged; run the evaluation again: it draws what is not whole")
    return data


def png(image: Tensor) -> bytes:
    """A picture as the bytes of a PNG file.  `image`: uint8 [3, h, w]."""
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def load(album: Path, paths: Sequence[str]) -> Tensor:
    """Pictures of the album as uint8 [n, 3, h, w]."""
    arrays = [np.asarray(Image.open(album / p).convert("RGB")) for p in paths]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
