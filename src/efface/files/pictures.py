"""The one reader of users' pictures, which gives upright RGB of 8 bits.

- EXIF's orientation is applied. A transparent picture is laid on white.
- Palettes, grey, CMYK and YCbCr become RGB. Of 16 bits the upper 8 count, rounded (v / 257). Of floating-point numbers
  0 is black and 1 is white; others are refused, for nothing says what they mean. So are whole numbers up to 255 that
  are stored in 16 or 32 bits, which would be all but black.
- Of an animation, and of a file of several pages, the first picture is read.
- A picture of more pixels than Pillow's bound against decompression bombs (179 million) is refused.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..plurals import write_count
from .captions import BESIDE, LISTS, TABLES, read_captions
from .missing import require_file

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

PICTURES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".ico"),
)
UNREAD = (
    *(".heic", ".heif", ".jxl", ".svg", ".psd", ".exr", ".hdr", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".eps"),
    *(".pdf", ".mp4", ".mov", ".webm", ".avi", ".mkv", ".npy", ".npz", ".zip", ".tar", ".parquet"),
)
"""Files that hold pictures, and are not opened: they are named where they are left out."""
MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\x00", b"MM\x00*")
"""How files of PNG, JPEG, GIF and TIFF begin."""
SHOWN = 5
"""Files that a message names."""


@dataclass(frozen=True)
class PictureFolder:
    """The content of a folder: pictures with their captions, and what is left out."""

    folder: Path
    captions: dict[Path, str]
    left_out: tuple[str, ...]
    """Files that hold pictures and are not read."""
    lost: tuple[str, ...]
    """Captions without a picture."""
    bare: tuple[str, ...] = ()
    """Pictures without a caption, where others have one."""
    unread: tuple[str, ...] = ()
    """Files that may hold captions and are not read."""

    def summarise(self, animations: Sequence[str] = ()) -> str:
        """One sentence about what is left out; "" where that is nothing."""
        parts = (
            ("file is", "files are", " left out, for only files that end as pictures' do are opened (.png, .jpg …)"),
            ("caption has", "captions have", " no picture"),
            ("picture has", "pictures have", ' no caption, so that "" is taken'),
            ("file may", "files may", " hold captions, which are read from metadata.jsonl, .csv or .parquet alone"),
            ("file holds", "files hold", " several pictures, of which the first is read"),
        )
        found = (self.left_out, self.lost, self.bare, self.unread, animations)
        said = [
            f"{write_count(len(names), one, many)}{what}: {_list_some(names)}"
            for (one, many, what), names in zip(parts, found, strict=True)
            if names
        ]
        return f"in {self.folder}, {'; '.join(said)}" if said else ""


def open_picture(file: str | Path) -> Image.Image:
    """Opens a picture, upright, in RGB of 8 bits.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no readable picture, has too many pixels, or numbers of an unknown range; the message names
            the file.
    """
    return _open(Path(file))[0]


def decode_picture(data: bytes, file: str | Path) -> Image.Image:
    """Decodes a picture from a file's bytes, as `open_picture` does; raises ValueError, which names the file."""
    from .decoding import decode

    return decode(io.BytesIO(data), Path(file))[0]


def list_pictures(folder: str | Path) -> PictureFolder:
    """The pictures of a folder and of those in it, also by links, with captions; hidden files are no pictures.

    Raises:
        FileNotFoundError: there is no such folder, or none of its files is a picture.
        ValueError: captions can't be read.
    """
    folder = Path(folder)
    files = _walk(folder)
    seen = [f for f in files if not _is_hidden(folder, f)]
    pictures = [f for f in seen if f.suffix.lower() in PICTURES]
    tables = (*BESIDE, *TABLES)
    held = {*pictures, *(f for f in seen if f.name.lower() in LISTS)}
    left_out = [f for f in files if f not in held and f.suffix.lower() in (*PICTURES, *UNREAD)]
    left_out += [f for f in seen if f.suffix.lower() not in (*PICTURES, *UNREAD, *tables) and _begins_as_picture(f)]

    def name(found: Sequence[Path]) -> tuple[str, ...]:
        return tuple(f.relative_to(folder).as_posix() if f.is_relative_to(folder) else str(f) for f in found)

    if not pictures:
        what = "holds no picture" if folder.is_dir() else "is no folder"
        there = f"; there are {_list_some(name(left_out))}" if left_out else ""
        raise FileNotFoundError(f"{folder} {what}; wanted {', '.join(PICTURES)}{there}")
    captions = read_captions(folder, pictures, seen)
    others = name(captions.lost), name(captions.bare), name(captions.unread)
    return PictureFolder(folder, captions.of, name(sorted(left_out)), *others)


def read_pictures(folder: str | Path, side: int) -> dict[str, Tensor]:
    """Reads uint8 pictures [m, 3, side, side] by caption, scaled and cropped to a square about their middle.

    The module `captions` documents where captions come from. One warning counts and names what is left out.

    Raises:
        FileNotFoundError: there is no such folder, or none of its files is a picture.
        ValueError: files or captions can't be read; the message names them.
    """
    from PIL import ImageOps

    found = list_pictures(folder)
    read: dict[str, list[Image.Image]] = {}
    unreadable, animations = [], []
    for file, caption in found.captions.items():
        name = file.relative_to(found.folder).as_posix()
        try:
            image, frames = _open(file)
        except ValueError as error:
            unreadable.append((name, str(error)))
            continue
        if frames > 1:
            animations.append(name)
        read.setdefault(caption, []).append(ImageOps.fit(image, (side, side)))
    if unreadable:
        names = _list_some([name for name, _ in unreadable])
        raise ValueError(
            f"{write_count(len(unreadable), 'file is no readable picture', 'files are no readable pictures')} in "
            f"{folder}: {names} (the first: {unreadable[0][1]})"
        )
    if left_out := found.summarise(animations):
        warnings.warn(left_out, stacklevel=2)
    return {caption: stack_pictures(images, side) for caption, images in read.items()}


def read_in_pieces(folder: str | Path, side: int, count: int) -> Iterator[Tensor]:
    """Reads the pictures that `read_pictures` reads, in its order: uint8 [at most `count`, 3, side, side] at a time.

    Raises:
        FileNotFoundError: there is no such folder, or none of its files is a picture.
        ValueError: a file or captions can't be read; the message names it.
    """
    from PIL import ImageOps

    found = list_pictures(folder)
    place = {caption: i for i, caption in enumerate(dict.fromkeys(found.captions.values()))}
    files = sorted(found.captions, key=lambda file: place[found.captions[file]])
    animations = []
    for start in range(0, len(files), count):
        part = []
        for file in files[start : start + count]:
            image, frames = _open(file)
            part.append(ImageOps.fit(image, (side, side)))
            animations += [file.relative_to(found.folder).as_posix()] if frames > 1 else []
        yield stack_pictures(part, side)
    if left_out := found.summarise(animations):
        warnings.warn(left_out, stacklevel=2)


def stack_pictures(images: Sequence[Image.Image], side: int) -> Tensor:
    """Stacks RGB pictures to uint8 [n, 3, side, side], scaled and cropped to a square about the middle."""
    import numpy as np
    import torch
    from PIL import ImageOps

    arrays = [np.asarray(ImageOps.fit(image, (side, side))) for image in images]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def _open(file: Path) -> tuple[Image.Image, int]:
    """Opens a picture in RGB; also returns how many pictures the file holds."""
    from .decoding import decode  # not above: Pillow is a tenth of the time that `import efface` takes

    return decode(require_file(file), file)


def _walk(folder: Path) -> list[Path]:
    """The files of a folder and of those in it, sorted; folders that are links are followed, each once."""
    found: list[Path] = []
    real = {os.path.realpath(folder)}
    for place, below, names in os.walk(folder, followlinks=True):
        paths = {each: os.path.join(place, each) for each in sorted(below)}
        order = sorted(paths, key=lambda each: os.path.islink(paths[each]))
        below[:] = [each for each in order if (end := os.path.realpath(paths[each])) not in real and not real.add(end)]
        found += [file for name in names if (file := Path(place, name)).is_file()]
    return sorted(found)


def _begins_as_picture(file: Path) -> bool:
    """Does a file, whatever its name ends in, begin as pictures do that can be opened?"""
    with file.open("rb") as opened:
        start = opened.read(12)
    return start.startswith(MAGIC) or (start[:4] == b"RIFF" and start[8:] == b"WEBP")


def _is_hidden(folder: Path, file: Path) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in file.relative_to(folder).parts)


def _list_some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
