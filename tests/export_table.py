"""The table of methods, architectures and exports in docs/models.md, from fits of tiny models.

`python tests/export_table.py` fits every method on every architecture that it serves and prints the table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from efface import methods
from efface.edits.edit import Edit
from efface.interchange.fitting import list_formats
from efface.methods.base import Method
from efface.models.architectures import ARCHITECTURES
from efface.models.base import Model
from tiny_fits import FLOWS, KINDS, build_quick, build_request, find_architecture, list_served

LETTERS = {"diffusers": "D", "single-file": "S", "lora": "L", "kohya": "K", "comfy": "C"}
PAGE = Path(__file__).parents[1] / "docs" / "models.md"


def describe(model: Model, edit: Edit) -> str:
    """The cell of an edit: letters of the formats that hold it, l and k where a change is no product of low rank."""
    if edit.meta.get("guide"):
        return "guide"
    letters = "".join(LETTERS[format] for format in list_formats(model, edit))
    exact = all("down" in parts for parts in edit.group_changes().values())
    return letters if exact else letters.replace("L", "l").replace("K", "k")


def fit(name: str, model: Model) -> Edit:
    """The shortest fit of a method, with guidance by two predictions where it needs that."""
    if name in ("negative", "sld") and not model.classifier_free:
        model.true_guidance = 2.0  # type: ignore[attr-defined]
    method: Method = build_quick(name, model, steps=1, batch=2, search_turns=0)
    return method.fit(model, build_request(name))


def read_page() -> Mapping[tuple[str, str], str]:
    """The cells of the table in the page, by method and architecture."""
    section = PAGE.read_text(encoding="utf-8").partition("## Which export of which method")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*\|$", section, re.M)]
    table = rows[next(i for i, row in enumerate(rows) if row[0] == "method") :]
    head = table[0]
    return {(row[0], kind): cell for row in table[2:] for kind, cell in zip(head[1:], row[1:], strict=True)}


def write_table() -> str:
    makers = {kind: make for kind, make in {**KINDS, **FLOWS}.items() if find_architecture(kind) == kind}
    rows = [["method", *ARCHITECTURES], ["---"] * (len(ARCHITECTURES) + 1)]
    for name in methods.list_names():
        row = [name]
        for kind in ARCHITECTURES:
            model = makers[kind]()
            row.append(describe(model, fit(name, model)) if name in list_served(kind) else "no")
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    print(write_table())
