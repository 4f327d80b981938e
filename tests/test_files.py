from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from efface.files import check_writable, read_pictures, read_tensors, write_tensors


def test_round_trip(tmp_path):
    tensors = {"a": torch.randn(3, 2).t(), "b": torch.arange(3, dtype=torch.bfloat16)}
    path = write_tensors(tmp_path / "deep" / "x.safetensors", tensors, {"k": [1, "ü"]})
    back, meta = read_tensors(path)
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
    assert meta == {"k": [1, "ü"]}
    assert os.listdir(path.parent) == ["x.safetensors"]


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_tensors(tmp_path / "x", {"a": torch.ones(1)}, {})
    with pytest.raises(TypeError):
        write_tensors(path, {"a": torch.zeros(1)}, {"bad": object()})
    assert read_tensors(path)[0]["a"].item() == 1
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("size", [0, 5, 200])
def test_truncated(tmp_path, size):
    path = write_tensors(tmp_path / "x", {"a": torch.ones(100)}, {})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="truncated"):
        read_tensors(path)


def test_foreign_file(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "x")
    with pytest.raises(ValueError, match="no efface metadata"):
        read_tensors(tmp_path / "x")


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        read_tensors(tmp_path / "x")


def test_unwritable_paths(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot write"):
        check_writable(tmp_path / "file" / "x")
    with pytest.raises(OSError, match="it is a folder"):
        check_writable(tmp_path)
    assert check_writable(tmp_path / "new" / "x") == tmp_path / "new" / "x"


def picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path)


def test_pictures_are_captioned_by_subfolder(tmp_path):
    picture(tmp_path / "a cat" / "1.png", (255, 0, 0))
    picture(tmp_path / "a cat" / "2.PNG", (0, 255, 0))
    picture(tmp_path / "a dog" / "1.png", (0, 0, 255), mode="L")
    picture(tmp_path / "loose.bmp", (1, 2, 3), size=(16, 4))
    (tmp_path / "notes.txt").write_text("no picture")
    read = read_pictures(tmp_path, 4)
    assert {caption: tuple(stack.shape) for caption, stack in read.items()} == {
        "a cat": (2, 3, 4, 4),
        "a dog": (1, 3, 4, 4),
        "": (1, 3, 4, 4),
    }
    assert read["a cat"].dtype == torch.uint8
    assert read["a cat"][:, :, 0, 0].tolist() == [[255, 0, 0], [0, 255, 0]]
    assert read[""][0, :, 2, 3].tolist() == [1, 2, 3]


def test_pictures_are_captioned_by_metadata_where_it_says(tmp_path):
    picture(tmp_path / "x" / "1.png", (255, 0, 0))
    picture(tmp_path / "x" / "2.png", (0, 255, 0))
    rows = '{"file_name": "x/1.png", "text": "a red thing"}\n\n'
    (tmp_path / "metadata.jsonl").write_text(rows)
    assert list(read_pictures(tmp_path, 4)) == ["a red thing", "x"]
    (tmp_path / "metadata.jsonl").write_text(rows + '{"file_name": "x/2.png"}\n')
    with pytest.raises(ValueError, match=r"metadata.jsonl, line 2: a row has file_name and text"):
        read_pictures(tmp_path, 4)


def test_pictures_are_cut_about_their_middle(tmp_path):
    wide = Image.new("RGB", (30, 10), (255, 255, 255))
    wide.paste((0, 0, 0), (10, 0, 20, 10))
    wide.save(tmp_path / "wide.png")
    assert read_pictures(tmp_path, 10)[""].max() == 0


def test_unreadable_pictures_are_named(tmp_path):
    picture(tmp_path / "good.png", (1, 1, 1))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"2 files in .* are no readable pictures: bad.png, cut.png"):
        read_pictures(tmp_path, 4)


def test_folders_without_pictures(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no picture; wanted .png"):
        read_pictures(tmp_path, 4)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        read_pictures(tmp_path / "nowhere", 4)
