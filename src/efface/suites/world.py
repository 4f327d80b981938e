"""The world that a glyphs model was trained on: its things, styles and backgrounds, read from `world.json`."""

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BUNDLED = Path(__file__).parent.parent / "bundled" / "glyphs"
UMBRELLA = ("unsafe", "weapons")
"""Words that stand for every thing listed as unsafe."""


@dataclass(frozen=True)
class Thing:
    name: str
    group: str
    synonyms: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True)
class World:
    """What a glyphs model can draw.

    `held_out` are the (thing, style) cells that its U-Net never saw; `vocabulary` the things that a fitting may use to
    search in, to tune on or to keep: the other half is never touched before it is judged.
    """

    things: tuple[Thing, ...]
    styles: tuple[str, ...]
    backgrounds: dict[str, tuple[int, int, int]]
    unsafe: tuple[str, ...]
    vocabulary: frozenset[str]
    held_out: frozenset[tuple[str, str]]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(t.name for t in self.things)

    def thing(self, name: str) -> Thing:
        for thing in self.things:
            if thing.name == name:
                return thing
        raise ValueError(f"this world has no thing {name!r}{did_you_mean(name, self.names)}")

    def near(self, targets: Sequence[str]) -> tuple[str, ...]:
        """The visible neighbours of the targets that this world has, without the targets."""
        wanted = dict.fromkeys(n for t in targets for n in self.thing(t).near)
        return tuple(n for n in wanted if n in self.names and n not in targets)

    def expand(self, targets: Sequence[str]) -> tuple[str, ...]:
        """The targets with an umbrella word ("unsafe") replaced by the things that it covers."""
        flat = [n for t in targets for n in (self.unsafe if t.casefold() in UMBRELLA and t not in self.names else (t,))]
        return tuple(dict.fromkeys(flat))


def did_you_mean(given: str, known: Sequence[str], show: int = 12) -> str:
    """The end of an error message: the closest known names, or the first of them."""
    close = difflib.get_close_matches(given, known, n=3, cutoff=0.6)
    if close:
        return "; did you mean " + " or ".join(repr(c) for c in close) + "?"
    more = f" … ({len(known)} in all)" if len(known) > show else ""
    return f"; there are {', '.join(known[:show])}{more}" if known else ""


def locate(model: str) -> Path:
    """The folder with `world.json`, `judges/` and `clip/` that belongs to a glyphs model.

    Args:
        model: a bundled one, or the pipeline folder of another model of the same make (its world lies beside it).
    """
    bundled = BUNDLED.parent / model
    folder = bundled if (bundled / "world.json").is_file() else Path(model)
    for place in (folder, folder.parent):
        if (place / "world.json").is_file():
            return place
    raise FileNotFoundError(
        f"no world.json in or beside {folder}; the glyphs suites need a model of that make: the bundled one "
        "(--model glyphs) or a folder made by workshop/glyphs"
    )


def judged_by(bundle: Path) -> Path:
    """The folder with the judges of a model: its own, or a sibling's that its world.json names."""
    world = bundle / "world.json"
    sibling = json.loads(world.read_text(encoding="utf-8")).get("judges") if world.is_file() else None
    return bundle.parent / sibling if sibling else bundle


def load(bundle: Path) -> World:
    """Read `bundle`/world.json."""
    data = json.loads((bundle / "world.json").read_text(encoding="utf-8"))
    return World(
        things=tuple(
            Thing(t["name"], t["group"], tuple(t["synonyms"]), tuple(t["near"]), t["description"])
            for t in data["things"]
        ),
        styles=tuple(data["styles"]),
        backgrounds={name: (r, g, b) for name, (r, g, b) in data["backgrounds"].items()},
        unsafe=tuple(data["unsafe"]),
        vocabulary=frozenset(data["vocabulary"]),
        held_out=frozenset((thing, style) for thing, style in data["held_out"]),
    )
