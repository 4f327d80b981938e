"""The world of glyphs: things, styles, backgrounds, words, and which cells the U-Net never sees."""

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
LANGUAGES = ("de", "es", "fr", "it")


@dataclass(frozen=True)
class Thing:
    name: str
    group: str
    icons: tuple[str, ...]
    synonyms: tuple[str, ...]
    translations: tuple[str, ...]
    description: str
    near: tuple[str, ...]
    tier: int


@dataclass(frozen=True)
class Style:
    name: str
    package: str
    version: str
    tier: int


@dataclass(frozen=True)
class World:
    """`things` and `styles` are those of the chosen size; `all_*` are everything that world.toml lists."""

    size: str
    things: tuple[Thing, ...]
    styles: tuple[Style, ...]
    all_things: tuple[Thing, ...]
    all_styles: tuple[Style, ...]
    unseen: tuple[Style, ...]
    backgrounds: dict[str, tuple[int, int, int]]

    def is_held_out(self, thing: str, style: str) -> bool:
        """Is this cell one of the tenth that the U-Net never sees?  Decided by a hash, so it never moves."""
        h = hashlib.sha256(f"{thing}/{style}".encode()).digest()
        return int.from_bytes(h[:4], "big") / 2**32 < 0.1


def load(size: str | None = None) -> World:
    """Read world.toml and scene.toml; `size` is "tiny", "small" or "full" (default: the one that scene.toml names)."""
    scene = tomllib.loads((HERE / "scene.toml").read_text())
    rows = tomllib.loads((HERE / "world.toml").read_text())["things"]
    size = size or scene["size"]
    if size not in ("tiny", "small", "full"):
        raise ValueError(f"size is {size!r}; it can be 'tiny', 'small' or 'full'")
    things = tuple(
        Thing(
            name=r["name"],
            group=r["group"],
            icons=tuple(r["icons"]),
            synonyms=tuple(r["synonyms"]),
            translations=tuple(r[k] for k in LANGUAGES),
            description=r["description"],
            near=tuple(r["near"]),
            tier=r["tier"],
        )
        for r in rows
    )
    styles = tuple(Style(**r) for r in scene["styles"])
    top = 2 if size == "full" else 1
    only = scene["tiny"] if size == "tiny" else None
    return World(
        size=size,
        things=tuple(t for t in things if t.tier <= top and (only is None or t.name in only["things"])),
        styles=tuple(s for s in styles if s.tier <= top and (only is None or s.name in only["styles"])),
        all_things=things,
        all_styles=styles,
        unseen=tuple(Style(tier=3, **r) for r in scene["unseen"]),
        backgrounds={k: tuple(v) for k, v in scene["backgrounds"].items()},
    )
