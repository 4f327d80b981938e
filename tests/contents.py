"""What a folder's files hold, to compare two runs of one command: all but what a clock says."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from safetensors import safe_open

from efface.edits.integrity import digest_tensor
from efface.files import hash_bytes

TIMES = ("seconds", "cost", "digest")
"""Keys of JSON files that hold times, and digests over these."""
HASH = re.compile(r"[0-9a-f]{12,}…?")


def read_contents(folder: Path, timed: bool = False) -> Mapping[str, list[str]]:
    """The digests of what files hold, by their names; a temporary of ours stands there as any other file.

    Args:
        timed: whether hashes in names and texts depend on times, as those of an edit do that was just made.
    """
    found: dict[str, list[str]] = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            name, text = str(file.relative_to(folder)), _read(file, folder, timed)
            name, text = (HASH.sub("#", name), HASH.sub("#", text)) if timed else (name, text)
            found.setdefault(name, []).append(hash_bytes(text.encode(errors="surrogateescape")))
    return {name: sorted(digests) for name, digests in found.items()}


def _read(file: Path, folder: Path, timed: bool) -> str:
    """The contents of a file; of JSON and edits, all but what a clock says."""
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as opened:
            values = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 - safe_open is no dict
            meta = {key: drop_times(_parse(text)) for key, text in (opened.metadata() or {}).items()}
        return repr([sorted((key, digest_tensor(value)) for key, value in values.items()), meta])
    if file.suffix == ".parquet":
        return repr(pq.read_table(file).to_pylist())
    text = file.read_bytes().decode(errors="surrogateescape").replace(str(folder), "OUT")
    if file.suffix == ".json":
        whole = drop_times(_parse(text))
        if file.name == "takedown.json":  # hashes of files that hold times
            whole["files"] = sorted(whole["files"])
            whole["page"] = bool(whole.get("page"))
        return repr(whole)
    if file.suffix == ".html":
        text = HASH.sub("#", text)
        return re.sub(r"[0-9][0-9.,]*", "#", text) if timed else text
    return text


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def drop_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: drop_times(held) for key, held in value.items() if key not in TIMES}
    return [drop_times(each) for each in value] if isinstance(value, list) else value
