"""Reads captions of pictures in a folder, by all common conventions.

These come in this order: a list in the folder or in a subfolder (`metadata.jsonl`, `.csv` or `.parquet`, as in Hugging
Face's imagefolder: `file_name`, relative to the list, and `text`, `caption` or `prompt`); the first line of a file with
the picture's name and .txt or .caption, as in kohya's scripts; the subfolder's name, without the number of repeats that
kohya's scripts put before it ("10_a cat"). A picture directly in the folder without any of these has the caption "".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .formats import parse
from .structured import read_bytes
from .text import read_text

LISTS = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
FILE = ("file_name", "filename", "file", "image")
TEXT = ("text", "caption", "prompt")
BESIDE = (".txt", ".caption")
TABLES = (".json", ".jsonl", ".csv", ".tsv", ".xlsx")
"""Files that may hold captions in a form that is not read."""
REPEATS = re.compile(r"^\d+_(?=.)")


@dataclass(frozen=True)
class Captions:
    """The captions of a folder's pictures."""

    of: dict[Path, str]
    """Each picture's; "" for one that has none."""
    lost: tuple[Path, ...]
    """Pictures that a list names and text files beside none, which are not there."""
    bare: tuple[Path, ...]
    """Pictures without a caption, where others have one from a list or a text file."""
    unread: tuple[Path, ...]
    """Files that may hold captions and are not read."""


def read_captions(folder: Path, pictures: Sequence[Path], files: Sequence[Path]) -> Captions:
    """A caption of every picture.

    Args:
        folder: that of the pictures, and of those in folders below.
        pictures: the pictures.
        files: all files of the folder and below.

    Raises:
        ValueError: a list can't be read (the message names file and line), or a picture has two captions.
    """
    known = {_spell(p): p for p in pictures}
    listed: dict[Path, str] = {}
    for file in sorted(f for f in files if f.name.lower() in LISTS):
        for name, text in _read_list(file).items():
            listed[known.get(_spell(name), name)] = text
    texts: dict[str, list[Path]] = {}
    for file in (f for suffix in BESIDE for f in files if f.suffix.lower() == suffix):
        texts.setdefault(_spell(file.with_suffix("")), []).append(file)
    beside = {
        p: _read_beside(p, [*texts.get(_spell(p.with_suffix("")), ()), *texts.get(_spell(p), ())]) for p in pictures
    }
    told = {p: listed.get(p, beside[p]) for p in pictures}
    used = any(text is not None for text in beside.values())
    stems = {_spell(p.with_suffix("")) for p in pictures} | set(known)
    stray = [text for stem, found in texts.items() if used and stem not in stems for text in found]
    named = {_spell(p.with_suffix("")) for p, text in told.items() if text is not None}
    tables = [f for f in files if f.suffix.lower() in TABLES and f.name.lower() not in LISTS]
    return Captions(
        of={p: _name_by_folder(folder, p) if text is None else text for p, text in told.items()},
        lost=(*(p for p in listed if _spell(p) not in known), *stray),
        bare=tuple(p for p, text in told.items() if not (text or _name_by_folder(folder, p)))
        if any(told.values())
        else (),
        unread=tuple(f for f in tables if _spell(f.with_suffix("")) not in named),
    )


def _spell(path: Path) -> str:
    """A path in one Unicode form: lists and file systems differ in it."""
    return unicodedata.normalize("NFC", str(path))


def _name_by_folder(folder: Path, picture: Path) -> str:
    return "" if picture.parent == folder else REPEATS.sub("", picture.parent.name)


def _read_beside(picture: Path, files: Sequence[Path]) -> str | None:
    """The first line of the text files of a picture's name; None where there is none."""
    texts = {}
    for file in files:
        lines = read_text(file).strip().splitlines()
        texts[file.name] = lines[0].strip() if lines else ""
    if len(set(texts.values())) > 1:
        raise ValueError(f"{picture} has several captions, in {' and '.join(texts)}; leave one of these files")
    return next(iter(texts.values()), None)


def _read_list(file: Path) -> dict[Path, str]:
    """The captions of a list, by the picture's file."""
    found = parse(file, read_bytes(file))
    out: dict[Path, str] = {}
    for line, row in zip(found.lines, found.rows, strict=True):
        name, text = (next((row[c] for c in columns if row.get(c) is not None), None) for columns in (FILE, TEXT))
        if isinstance(text, (list, tuple)):
            text = text[0] if text else None
        if not isinstance(name, str) or not isinstance(text, str):
            raise ValueError(f"{file}, line {line}: a row has file_name and text")
        picture = file.parent / name.replace("\\", "/")
        if out.setdefault(picture, text.strip()) != text.strip():
            raise ValueError(f"{file}, line {line}: {name} has a caption on an earlier line already; leave one of them")
    return out
