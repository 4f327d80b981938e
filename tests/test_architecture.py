"""The picture of the floors and the page around it say what the code is; no file is long."""

from __future__ import annotations

import re

from architecture import PICTURE, ROOT, draw, read_floors, read_imports, read_picture, reduce_imports

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
LONGEST = 300
"""Lines of a file, by CONTRIBUTING.md."""


def test_the_picture_shows_every_room_and_every_import() -> None:
    """`python tests/architecture.py` draws it anew."""
    imports = read_imports()
    rooms, arrows = read_picture(PICTURE.read_text(encoding="utf-8"))
    assert rooms == imports
    assert arrows == {(room, below) for room, targets in reduce_imports(imports).items() for below in targets}


def test_an_arrow_that_others_imply_is_left_out() -> None:
    imports = {"a": {"b", "c"}, "b": {"c"}, "c": set()}
    assert reduce_imports(imports) == {"a": {"b"}, "b": {"c"}, "c": set()}
    assert read_picture(draw([["a"], ["b"], ["c"]], imports)) == (imports, {("a", "b"), ("b", "c")})


def test_the_page_has_a_sentence_for_every_room() -> None:
    told = re.findall(r"^- \*\*`([\w.]+)`\*\*", PAGE, flags=re.MULTILINE)
    assert sorted(told) == sorted(room for floor in read_floors() for room in floor)


def test_the_page_names_files_that_are_there() -> None:
    walked = re.findall(r"`((?:[\w-]+/)*[\w-]+\.py)`", PAGE)
    missing = [name for name in walked if not any((ROOT / place / name).is_file() for place in ("src/efface", "."))]
    assert len(walked) > 20
    assert not missing


def test_no_file_is_longer_than_the_rules_allow() -> None:
    folders = ("src", "tests", "benchmarks", "recipes", "workshop")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    lines = {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    assert len(lines) > 500
    assert not {name: count for name, count in lines.items() if count > LONGEST}, "divide it by its subjects"
