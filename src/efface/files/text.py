"""Reads text in the usual encodings of tables and captions."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from .structured import read_bytes

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: str | Path) -> str:
    """Reads a file's text in any encoding that `decode` knows.

    Raises:
        ValueError: it has no such encoding, or is too large; the message names the file.
        OSError: it can't be read.
    """
    path = Path(path)
    return decode(read_bytes(path), str(path))[0]


def read_words(path: str | Path) -> list[str]:
    """Reads the words of a file, one a line, without surrounding blanks; raises what `read_text` raises."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def decode(data: bytes, name: str) -> tuple[str, str]:
    """Decodes text; returns it with its encoding: that of a byte-order mark, UTF-8, or Windows-1252 (Excel's).

    Windows-1252 is used only where no two bytes beyond ASCII are adjacent, as they are in other alphabets.

    Raises:
        ValueError: it has no such encoding; the message calls the file `name`.

    >>> decode("café".encode("utf-8"), "a.csv"), decode("café".encode("cp1252"), "a.csv")
    (('café', 'utf-8'), ('café', 'windows-1252'))
    """
    for mark, encoding in MARKS:
        if data.startswith(mark):
            try:
                return data.decode(encoding), encoding
            except UnicodeDecodeError as error:
                raise ValueError(f"{name} begins as {encoding} and is not (byte {error.start})") from error
    if b"\x00" in data[:1000]:
        raise ValueError(f"{name} is no text")
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError as error:
        if not re.search(rb"[\x80-\xff]{2}", data):
            try:
                return data.decode("cp1252"), "windows-1252"
            except UnicodeDecodeError:
                pass
        raise ValueError(f"{name} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
