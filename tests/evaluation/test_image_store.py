"""The image store: what names a chunk, which of its files are whole, and how far its drawing is said to be."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from efface.evaluation.images import (
    digest,
    draw_images,
    encode_png,
    find_chunk,
    is_lost,
    load_images,
    make_chunk_key,
    plan_chunks,
    split_chunks,
    write_chunk,
)
from efface.files import decode_picture
from efface.models.pictures import NoNumbers
from efface.records.report import Drawing
from efface.suites.spec import Row
from report_fixtures import record

ROW = Row("r0", "eine Katze für mich", 0, "target", "erase", "object", "cat", ("cat",))
DRAWING = record().drawing.model_copy(update={"resolution": 512, "guidance": 7.5})


def build_rows(*guidances: float | None) -> list[Row]:
    return [dataclasses.replace(ROW, id=f"r{i}", seed=i, guidance=g) for i, g in enumerate(guidances)]


def describe_drawing(**changes: Any) -> Drawing:
    return DRAWING.model_copy(update=changes)


def hash_with_sha(value: Any) -> str:
    """The first 32 digits of the sha256 of JSON, as a second computation."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def test_a_chunk_is_named_by_what_determines_its_pictures() -> None:
    rows, named = build_rows(None, None), DRAWING.model_dump(exclude={"model"})
    pictures = [[r.prompt, r.seed] for r in rows]
    assert make_chunk_key(rows, DRAWING) == hash_with_sha({"drawing": named, "pictures": pictures})
    at_three = hash_with_sha({"drawing": {**named, "guidance": 3.0}, "pictures": pictures})
    assert make_chunk_key(build_rows(3.0, 3.0), DRAWING) == at_three
    mixed = hash_with_sha({"drawing": named, "pictures": [[*pictures[0], 7.5], [*pictures[1], 3.0]]})
    assert make_chunk_key(build_rows(None, 3.0), DRAWING) == mixed
    assert digest({"ü": 1}) == hash_with_sha({"ü": 1}) and len(digest(1)) == 32


def test_the_base_is_drawn_once_for_every_strength() -> None:
    rows = build_rows(None)
    for edit, same in (("", True), ("e" * 64, False)):
        keys = {make_chunk_key(rows, describe_drawing(edit=edit, strength=strength)) for strength in (0.5, 1.0)}
        assert (len(keys) == 1) == same
        assert make_chunk_key(rows, describe_drawing(edit=edit, model="elsewhere")) == make_chunk_key(
            rows, describe_drawing(edit=edit)
        )


def test_rows_are_split_into_chunks_of_one_size_and_the_rest() -> None:
    parts = split_chunks(build_rows(*[None] * 11), 512)
    assert [[r.seed for r in part] for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]


def test_full_chunks_have_one_guidance_and_the_rest_is_drawn_together() -> None:
    rows = build_rows(1.0, 2.0, 1.0, 1.0, 2.0, 1.0, 1.0)
    planned = [(how.guidance, [r.seed for r in part]) for how, part in plan_chunks(rows, DRAWING)]
    assert planned == [(1.0, [0, 2, 3, 5]), (7.5, [6, 1, 4])]
    (alone,) = plan_chunks(build_rows(2.0, 2.0), DRAWING)
    assert alone[0] == describe_drawing(guidance=2.0)


class Pencil:
    """Draws each seed as a shade; pictures with some seeds come out without numbers."""

    def __init__(self, lost: Sequence[int] = ()) -> None:
        self.lost, self.asked = lost, list[tuple[list[int], Any]]()

    def images(self, prompts: Sequence[str], seeds: Sequence[int], **how: Any) -> Tensor:
        assert how["batch"] == len(seeds) == len(prompts) and (how["steps"], how["sampler"]) == (12, "unipc")
        self.asked.append((list(seeds), how["guidance"]))
        made = torch.tensor(list(seeds), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)
        if lost := tuple(i for i, seed in enumerate(seeds) if seed in self.lost):
            raise NoNumbers(made, lost)
        return made


def draw(pencil: Pencil, rows: Sequence[Row], store: Path) -> tuple[dict[str, str], list[tuple[int, int]]]:
    told: list[tuple[int, int]] = []
    paths = draw_images(pencil, rows, DRAWING, store, lambda *done: told.append(done), "unipc")
    return paths, told


def test_what_is_there_is_not_drawn_again_and_progress_begins_with_it(tmp_path: Path) -> None:
    rows, pencil = build_rows(*[None] * 10), Pencil()
    paths, told = draw(pencil, rows, tmp_path)
    assert told == [(0, 10), (4, 10), (8, 10), (10, 10)] and pencil.asked[0] == ([0, 1, 2, 3], 7.5)
    assert load_images(tmp_path, [paths[r.id] for r in rows])[:, 0, 0, 0].tolist() == list(range(10))
    damaged = tmp_path / paths["r5"]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1])
    assert draw(pencil, rows, tmp_path) == (paths, [(6, 10), (10, 10)])
    assert [seeds for seeds, _ in pencil.asked[3:]] == [[4, 5, 6, 7]] and damaged.read_bytes() == whole
    assert draw(pencil, rows, tmp_path) == (paths, [(10, 10)])
    assert draw_images(pencil, rows, DRAWING, tmp_path) == paths and len(pencil.asked) == 4


def test_pictures_that_another_process_drew_meanwhile_stay(tmp_path: Path) -> None:
    """Its evaluation names them, and a picture's last bits may differ on another device."""
    rows = build_rows(None, None)
    theirs = tmp_path / make_chunk_key(rows, DRAWING)

    class Slow(Pencil):
        def images(self, prompts: Sequence[str], seeds: Sequence[int], **how: Any) -> Tensor:
            write_chunk(theirs, torch.full((2, 3, 2, 2), 7, dtype=torch.uint8), (), rows)
            return super().images(prompts, seeds, **how)

    paths, told = draw(Slow(), rows, tmp_path)
    assert load_images(tmp_path, [paths[r.id] for r in rows]).eq(7).all() and told == [(0, 2), (2, 2)]
    assert find_chunk(theirs, rows) is not None


def test_a_chunk_of_several_guidances_is_drawn_with_a_list_of_them(tmp_path: Path) -> None:
    pencil = Pencil()
    draw(pencil, build_rows(1.0, None), tmp_path)
    draw(pencil, build_rows(1.0, 1.0), tmp_path)
    assert pencil.asked == [([0, 1], [1.0, 7.5]), ([0, 1], 1.0)]


def test_the_names_of_pictures_without_numbers_say_so(tmp_path: Path) -> None:
    paths, _ = draw(Pencil(lost=(1, 5)), build_rows(*[None] * 6), tmp_path)
    assert [name for name, path in paths.items() if is_lost(path)] == ["r1", "r5"]
    assert all((tmp_path / path).is_file() for path in paths.values())


def test_a_chunk_is_whole_where_each_picture_has_the_hash_in_its_name(tmp_path: Path) -> None:
    rows, folder = build_rows(None, None), tmp_path / "chunk"
    pictures = torch.arange(2, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)
    files = write_chunk(folder, pictures, (), rows)
    assert files == [f"{hashlib.sha256((folder / f).read_bytes()).hexdigest()[:32]}.png" for f in files]
    listed = json.loads((folder / "chunk.json").read_text(encoding="utf-8"))
    assert listed == [{"prompt": r.prompt, "seed": r.seed, "file": f} for r, f in zip(rows, files, strict=True)]
    assert find_chunk(folder, rows) == files == find_chunk(folder)
    assert find_chunk(folder, build_rows(None)) is None and find_chunk(folder, rows[::-1]) is None
    assert write_chunk(folder, pictures, (), rows) == files, "a chunk takes the place of a damaged one"
    for name in files:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(b"")
        assert find_chunk(folder, rows) is None and find_chunk(folder) is None
        (folder / name).write_bytes(whole)
    outside = [{**each, "file": f"../chunk/{each['file']}"} for each in listed]
    (folder / "chunk.json").write_text(json.dumps(outside), encoding="utf-8")
    assert find_chunk(folder) is None, "a chunk names no file outside of its folder"
    assert find_chunk(tmp_path / "none") is None


def test_a_picture_is_read_as_it_was_written(tmp_path: Path) -> None:
    picture = torch.arange(24, dtype=torch.uint8).reshape(3, 2, 4)
    data = encode_png(picture)
    assert np.array_equal(np.asarray(decode_picture(data, "p")), picture.permute(1, 2, 0).numpy())
    (tmp_path / "p.png").write_bytes(data)
    assert torch.equal(load_images(tmp_path, ["p.png"] * 2), picture.expand(2, -1, -1, -1))


def test_pictures_with_other_bytes_are_refused(tmp_path: Path) -> None:
    from efface.evaluation.images import read_image

    name = hashlib.sha256(b"data").hexdigest()[:32]
    (tmp_path / f"{name}.lost.png").write_bytes(b"data")
    assert read_image(tmp_path / f"{name}.lost.png") == b"data"
    (tmp_path / f"{name}.png").write_bytes(b"other")
    with pytest.raises(ValueError, match="is damaged; run the evaluation again"):
        read_image(tmp_path / f"{name}.png")
