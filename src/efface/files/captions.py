"""Captions of pictures in a folder, by every convention that people have.

In this order: a list in the folder or in any below (`metadata.jsonl`, `.csv` or `.parquet`, as of Hugging Face's
imagefolder: `file_name`, relative to the list, and `text`, `caption` or `prompt`); a file beside the picture, of its
name and .txt or .caption (kohya's scripts: its first line); the subfolder's name, without the number of repeats that
kohya's scripts put before it ("10_a cat"). A picture directly in the folder that has none of these has the caption "".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from .formats import parse
from .structured import read_bytes
from .text import read_text

LISTS = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
FILE = ("file_name", "filename", "file", "image")
TEXT = ("text", "caption", "prompt")
BESIDE = (".txt", ".caption")
REPEATS = re.compile(r"^\d+_(?=.)")


def read_captions(folder: Path, pictures: Sequence[Path]) -> tuple[dict[Path, str], list[str]]:
    """A caption of every picture, and the names, from `folder`, of those that a list or a text file has none for.

    Raises:
        ValueError: a list that can't be read (names file and line), or a picture with two captions.
    """
    known = set(pictures)
    listed: dict[Path, str] = {}
    lists = sorted({p.parent for p in pictures} | {folder, *(a for p in pictures for a in _between(folder, p))})
    for name in (place / each for place in lists for each in LISTS):
        if name.is_file():
            listed |= _read_list(name)
    beside = {picture: _read_beside(picture) for picture in pictures}
    out = {p: listed.get(p, beside[p]) for p in pictures}
    captions = {p: _named_by_folder(folder, p) if text is None else text for p, text in out.items()}
    used = any(text is not None for text in beside.values())
    texts = [t for p in sorted({p.parent for p in pictures}) for t in sorted(p.iterdir()) if t.suffix in BESIDE]
    stems = {p.with_suffix("") for p in known} | known
    lost = [p for p in listed if p not in known] + [t for t in texts if used and t.with_suffix("") not in stems]
    return captions, [p.relative_to(folder).as_posix() if p.is_relative_to(folder) else str(p) for p in lost]


def _between(folder: Path, picture: Path) -> list[Path]:
    """The folders between `folder` and a picture in it."""
    return [folder.joinpath(*picture.relative_to(folder).parts[:n]) for n in range(len(picture.parts))][:-1]


def _named_by_folder(folder: Path, picture: Path) -> str:
    return "" if picture.parent == folder else REPEATS.sub("", picture.parent.name)


def _read_beside(picture: Path) -> str | None:
    """The first line of the text file of a picture's name; None where there is none."""
    texts = {}
    for suffix in BESIDE:
        for file in (picture.with_suffix(suffix), picture.with_name(picture.name + suffix)):
            if file.is_file():
                lines = read_text(file).strip().splitlines()
                texts[file.name] = lines[0].strip() if lines else ""
    if len(set(texts.values())) > 1:
        raise ValueError(f"{picture} has several captions, in {' and '.join(texts)}; leave one of these files")
    return next(iter(texts.values()), None)


def _read_list(file: Path) -> dict[Path, str]:
    """The captions of a list, by the file that each is of."""
    found = parse(file, read_bytes(file))
    out = {}
    for line, row in zip(found.lines, found.rows, strict=True):
        name, text = (next((row[c] for c in columns if row.get(c) is not None), None) for columns in (FILE, TEXT))
        if isinstance(text, (list, tuple)):
            text = text[0] if text else None
        if not isinstance(name, str) or not isinstance(text, str):
            raise ValueError(f"{file}, line {line}: a row has file_name and text")
        out[file.parent / name.replace("\\", "/")] = text.strip()
    return out
