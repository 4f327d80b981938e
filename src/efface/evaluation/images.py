"""The image store: pictures are drawn once, in fixed chunks of rows, and each chunk is a folder that is complete or
absent.

A chunk's folder is named by the hash of everything that determines its pictures, a picture by the hash of its file. So
an interrupted drawing continues at the first missing chunk, a damaged picture is noticed and its chunk drawn again, and
several evaluations that share an image store draw the untouched base once.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..files import hash_bytes, hash_json, new_folder, open_picture, read_bytes, read_json
from ..models.pictures import NoNumbers
from ..models.trajectory import Sampler, choose_image_batch
from ..records.report import Drawing
from ..suites.spec import Row

Progress = Callable[[int, int], None]
LOST = ".lost.png"
"""The end of the name of a picture that came out as NaN or infinite numbers."""
VARIANTS = ("base", "edited")
"""Which model drew a picture: the untouched base, or the model under the edit."""


class ImageModel(Protocol):
    """The part of a Model that drawing needs."""

    def images(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int | None,
        guidance: float | Sequence[float | None] | None,
        batch: int,
        sampler: Sampler,
    ) -> Tensor: ...


@dataclass(frozen=True)
class ImageSet:
    """The pictures of some rows by the base and the edited model, in an image store."""

    rows: Sequence[Row]
    paths: Mapping[str, Mapping[str, str]]
    """The path of each picture within the image store, by variant and row id."""
    store: Path
    """The folder of the image store."""
    resolution: int
    """Pixels a side."""

    def list_paths(self, variant: str, rows: Sequence[Row]) -> list[str]:
        """The paths of these rows' pictures within the image store."""
        return [self.paths[variant][row.id] for row in rows]

    def load(self, variant: str, rows: Sequence[Row]) -> Tensor:
        """The pictures of these rows as uint8 [n, 3, h, w]."""
        return load_images(self.store, self.list_paths(variant, rows))

    def split_chunks(self) -> list[Sequence[Row]]:
        """The rows in fixed chunks, which are judged together."""
        return split_chunks(self.rows, self.resolution)


def split_chunks(rows: Sequence[Row], resolution: int) -> list[Sequence[Row]]:
    """Splits rows into fixed chunks, which are drawn together."""
    size = choose_image_batch(resolution)
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def digest(value: Any) -> str:
    """The sha256 of a value's JSON, shortened to 32 digits."""
    return hash_json(value)[:32]


def make_chunk_key(rows: Sequence[Row], drawing: Drawing) -> str:
    """The name of a chunk's folder: a digest of everything that determines its pictures.

    Chunks of one guidance, which is then the drawing's, have the names of earlier versions.
    """
    decides = drawing.model_dump(exclude={"model"} if drawing.edit else {"model", "strength"})
    own = list_guidances(rows, drawing)
    if len(set(own)) == 1:
        return digest({"drawing": {**decides, "guidance": own[0]}, "pictures": [[r.prompt, r.seed] for r in rows]})
    return digest({"drawing": decides, "pictures": [[r.prompt, r.seed, g] for r, g in zip(rows, own, strict=True)]})


def list_guidances(rows: Sequence[Row], drawing: Drawing) -> list[float]:
    """The guidance that each row asks for, or else the drawing's own."""
    return [drawing.guidance if row.guidance is None else row.guidance for row in rows]


def plan_chunks(rows: Sequence[Row], drawing: Drawing) -> list[tuple[Drawing, Sequence[Row]]]:
    """Plans the chunks that are drawn together: full ones of rows with one guidance, then the remaining rows.

    So rows at guidance 1, which need one prediction, are seldom mixed with others, which need two; and a list with a
    different guidance in each row is drawn in as few chunks as any other.
    """
    guidances = list_guidances(rows, drawing)
    full, left = [], list[Row]()
    for guidance in dict.fromkeys(guidances):
        alike = [r for r, g in zip(rows, guidances, strict=True) if g == guidance]
        *whole, last = split_chunks(alike, drawing.resolution)
        full += whole
        left += last
    return [
        (drawing.model_copy(update={"guidance": own[0]}) if len(set(own)) == 1 else drawing, part)
        for part in (*full, *split_chunks(left, drawing.resolution))
        for own in [list_guidances(part, drawing)]
    ]


def draw_images(
    model: ImageModel,
    rows: Sequence[Row],
    drawing: Drawing,
    image_store: Path,
    on_progress: Progress | None = None,
    sampler: Sampler = "own",
) -> dict[str, str]:
    """Draws every chunk that is not in the image store yet, with the model in its present state.

    Progress is reported once before anything is drawn, with the pictures that exist already, and after each chunk.

    Args:
        model: the model that draws.
        rows: the rows to draw.
        drawing: how they are drawn.
        image_store: the folder of the image store.
        on_progress: called with the number of pictures done, and their total.
        sampler: the sampler that `drawing` names.

    Returns:
        The path of each row's picture within the image store, by the row's id.
    """
    planned = [(how, part, make_chunk_key(part, how)) for how, part in plan_chunks(rows, drawing)]
    found = {key: find_chunk(image_store / key, part) for _, part, key in planned}
    paths: dict[str, str] = {}
    done = sum(len(part) for _, part, key in planned if found[key] is not None)
    if on_progress:
        on_progress(done, len(rows))
    for how, part, key in planned:
        files = found[key]
        if drawn := files is None:
            made = _draw(model, part, how, sampler)  # meanwhile another process may have drawn it, and judge its files
            files = find_chunk(image_store / key, part) or write_chunk(image_store / key, *made, part)
        paths.update({row.id: f"{key}/{file}" for row, file in zip(part, files, strict=True)})
        if drawn and on_progress:
            done += len(part)
            on_progress(done, len(rows))
    return paths


def _draw(model: ImageModel, rows: Sequence[Row], how: Drawing, sampler: Sampler) -> tuple[Tensor, Sequence[int]]:
    """Draws a chunk: uint8 pictures [n, 3, h, w], and the indices of those with NaN or infinite numbers."""
    own = list_guidances(rows, how)
    try:
        made = model.images(
            [r.prompt for r in rows],
            [r.seed for r in rows],
            steps=how.steps,
            guidance=own if len(set(own)) > 1 else own[0],
            batch=len(rows),
            sampler=sampler,
        )
    except NoNumbers as error:
        return error.pictures, error.lost
    return made, ()


def is_lost(path: str) -> bool:
    """Whether a picture's path says that it came out as NaN or infinite numbers; it is not judged then."""
    return path.endswith(LOST)


def write_chunk(folder: Path, images: Tensor, lost: Sequence[int], rows: Sequence[Row]) -> list[str]:
    """Writes a chunk under a temporary name, then renames it.

    Args:
        folder: the chunk's folder.
        images: uint8 [n, 3, h, w].
        lost: the indices of those with NaN or infinite numbers, which their names will say.
        rows: the rows of the pictures.
    """
    files = []
    with new_folder(folder, replace=True) as made:
        for i, image in enumerate(images):
            data = encode_png(image)
            files.append(f"{hash_bytes(data)[:32]}{LOST if i in lost else '.png'}")
            (made / files[-1]).write_bytes(data)
        listed = [{"prompt": r.prompt, "seed": r.seed, "file": f} for r, f in zip(rows, files, strict=True)]
        (made / "chunk.json").write_text(json.dumps(listed, ensure_ascii=False, indent=1), encoding="utf-8")
    return files


def find_chunk(folder: Path, rows: Sequence[Row] | None = None) -> list[str] | None:
    """The files of a chunk, in the order of its rows; None where it is missing or a picture is damaged.

    Args:
        folder: the chunk's folder.
        rows: the rows that it must hold; the result is also None where it holds others.
    """
    try:
        listed = read_json(folder / "chunk.json")
        files = [p["file"] for p in listed]
        asked = [(r.prompt, r.seed) for r in rows or ()]
        whole = rows is None or asked == [(p["prompt"], p["seed"]) for p in listed]
        whole = whole and all(Path(f).name == f and read_image(folder / f) for f in files)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return files if whole else None


def read_image(path: Path) -> bytes:
    """Reads the bytes of a picture's file; raises ValueError where they do not have the hash in its name."""
    data = read_bytes(path)
    if hash_bytes(data)[:32] != path.name.partition(".")[0]:
        raise ValueError(f"{path} is damaged; run the evaluation again: it draws what is not whole")
    return data


def encode_png(image: Tensor) -> bytes:
    """Encodes a picture, uint8 [3, h, w], as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def load_images(image_store: Path, paths: Sequence[str]) -> Tensor:
    """Loads pictures of the image store as uint8 [n, 3, h, w]."""
    arrays = [np.asarray(open_picture(image_store / p)) for p in paths]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
