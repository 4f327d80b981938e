"""Draw the rooms of the package on their floors, with the imports between them: `python tests/architecture.py`.

Rooms and arrows are read from the code's import graph, floors from the contract "floors" in pyproject.toml. An import
is not drawn where other arrows lead to the same room; the list of a room's imports, which shows when the pointer rests
on the room, is complete.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import grimp

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "figures" / "floors.svg"
WIDTH, HEIGHT, BOX, STEP, TOP = 760, 28, 112, 58, 16
STYLE = (
    "rect{fill:#f4f1ea;stroke:#57534e}text{font:13px system-ui,sans-serif;fill:#1c1917;text-anchor:middle}"
    "path{fill:none;stroke:#a8a29e}marker path{fill:#a8a29e;stroke:none}svg{background:#fff}"
)

Imports = Mapping[str, set[str]]


def read_floors() -> list[list[str]]:
    """The rooms of each floor, the highest first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = next(contract for contract in contracts["contracts"] if contract["name"] == "floors")["layers"]
    return [[room.strip() for room in layer.split("|")] for layer in layers]


def read_imports() -> dict[str, set[str]]:
    """The rooms that each room imports."""
    graph = grimp.build_graph("efface", cache_dir=None)
    rooms = {room for floor in read_floors() for room in floor}
    for room in rooms:
        graph.squash_module(f"efface.{room}")
    found = {room: graph.find_modules_directly_imported_by(f"efface.{room}") for room in rooms}
    return {room: {name.removeprefix("efface.") for name in names} & rooms - {room} for room, names in found.items()}


def reduce_imports(imports: Imports) -> dict[str, set[str]]:
    """The imports without those that lead to a room by way of another import, too."""

    def reach(room: str) -> set[str]:
        return imports[room].union(*(reach(below) for below in imports[room]))

    return {room: below - set().union(*(reach(one) for one in below)) for room, below in imports.items()}


def draw(floors: Sequence[Sequence[str]], imports: Imports) -> str:
    """The picture, as SVG."""
    # Rooms that are alone on their floor stand left and right by turns, so that arrows pass beside them.
    places = {
        room: (WIDTH * (i + 1) / (len(floor) + 1) + (len(floor) == 1) * 90 * (-1) ** level, TOP + STEP * level)
        for level, floor in enumerate(floors)
        for i, room in enumerate(floor)
    }
    arrows = [
        f'<path data-from="{room}" data-to="{below}" marker-end="url(#tip)" d="{_curve(places[room], places[below])}"/>'
        for room, targets in sorted(reduce_imports(imports).items())
        for below in sorted(targets)
    ]
    boxes = [
        f'<g data-room="{room}" data-imports="{" ".join(sorted(imports[room]))}">'
        f"<title>{room} imports {', '.join(sorted(imports[room])) or 'nothing of ours'}</title>"
        f'<rect x="{x - BOX / 2:.0f}" y="{y:.0f}" width="{BOX}" height="{HEIGHT}" rx="4"/>'
        f'<text x="{x:.0f}" y="{y + 18:.0f}">{room}</text></g>'
        for room, (x, y) in places.items()
    ]
    tip = '<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    size = f'viewBox="0 0 {WIDTH} {TOP + STEP * len(floors)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="The floors of the package">'
    defs = f'<style>{STYLE}</style><defs>{tip}<path d="M0 0 8 4 0 8z"/></marker></defs>'
    return "\n".join([head, defs, *arrows, *boxes, "</svg>", ""])


def read_picture(text: str) -> tuple[dict[str, set[str]], set[tuple[str, str]]]:
    """The imports by room that a picture says it shows, and the arrows that it has."""
    nodes = list(ElementTree.fromstring(text).iter())
    rooms = [node.attrib for node in nodes if "data-room" in node.attrib]
    arrows = {(node.attrib["data-from"], node.attrib["data-to"]) for node in nodes if "data-from" in node.attrib}
    return {room["data-room"]: set(room["data-imports"].split()) for room in rooms}, arrows


def _curve(start: tuple[float, float], end: tuple[float, float]) -> str:
    """From the lower edge of a box to the upper edge of another."""
    (x, y), (to_x, to_y) = (start[0], start[1] + HEIGHT), end
    bend = min(60.0, (to_y - y) / 2)
    return f"M{x:.0f} {y:.0f}C{x:.0f} {y + bend:.0f} {to_x:.0f} {to_y - bend:.0f} {to_x:.0f} {to_y:.0f}"


if __name__ == "__main__":
    PICTURE.write_text(draw(read_floors(), read_imports()), encoding="utf-8")
