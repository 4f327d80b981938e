"""Parts that bundled models share, so that the wheel holds them once.

`shared.json` in the model's folder says where the files of each shared part are. A part of which some tensors are the
model's own has a folder too, with these tensors and the configuration; other shared parts have no folder. `assemble`
writes a folder with every part, as diffusers needs it, and so does `save_pretrained` of the opened model.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, final

from safetensors.torch import load_file, save_file
from torch import Tensor

from ...files import hash_file, write_whole
from .place import read_object

SHARED = "shared.json"
WEIGHTS = "*.safetensors"
CONFIG = "config.json"


@final
@dataclass(frozen=True)
class Share:
    """The files of one shared part."""

    source: str
    """The folder's path among the bundled models, such as `glyphs/model/vae`."""
    digest: str = ""
    """The sha256 of its file of weights, where it has one."""
    only: str = ""
    """The prefixes of the names of the tensors that are shared, separated by commas; "" shares all."""
    before: str = ""
    """A prefix that is put before these names."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Entries of the part's configuration that differ in the model that shares it."""

    @staticmethod
    def of(source: Path, bundled: Path, only: str = "", before: str = "", **config: Any) -> Share:
        """A share of the files in the folder `source` as they are now; `bundled` is the folder of bundled models."""
        held = sorted(source.glob(WEIGHTS))
        digest = hash_file(held[0]) if held else ""
        return Share(source.relative_to(bundled).as_posix(), digest, only, before, config)

    def read(self, bundled: Path) -> dict[str, Tensor]:
        """The shared tensors, by their names in the part.

        Raises:
            ValueError: the file is missing, or has changed since the share was made.
        """
        held = sorted((bundled / self.source).glob(WEIGHTS))
        if len(held) != 1 or hash_file(held[0]) != self.digest:
            raise ValueError(
                f"{bundled / self.source} holds other weights than the model that shares them was made with, or none; "
                "install efface again, or run the workshop's stage bundle-flow after bundle"
            )
        begins = tuple(self.only.split(","))
        return {f"{self.before}{name}": own for name, own in load_file(held[0]).items() if name.startswith(begins)}


def write_shares(folder: Path, shares: Mapping[str, Share]) -> Path:
    """Writes a model's `shared.json`."""
    said = {part: asdict(share) for part, share in shares.items()}
    return write_whole(folder / SHARED, json.dumps(said, indent=1) + "\n")


def assemble(folder: Path, out: Path) -> Path:
    """Writes a bundled model with all of its parts as a plain diffusers folder.

    Args:
        folder: the model's folder, `…/bundled/NAME/model`.
        out: a folder that does not exist yet.

    Raises:
        ValueError: a shared file is missing or has changed.
    """
    bundled = folder.parents[1]
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns(SHARED))
    for part, said in read_object(folder / SHARED).items():
        share, place = Share(**said), out / part
        place.mkdir(exist_ok=True)
        for file in (bundled / share.source).iterdir() if not (folder / part).is_dir() else ():
            if file.is_file():
                shutil.copy(file, place)
        if share.config:
            held = {**read_object(place / CONFIG), **share.config}
            (place / CONFIG).write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
        if share.digest:
            tensors = share.read(bundled)
            if (folder / part).is_dir():
                own = sorted((folder / part).glob(WEIGHTS))
                tensors |= load_file(own[0]) if own else {}
                save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    return out


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """Gives a folder that has every part: the model's own, or a temporary one where parts are shared."""
    if not (folder / SHARED).is_file():
        yield folder
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        yield assemble(folder, Path(scratch) / folder.parent.name)
