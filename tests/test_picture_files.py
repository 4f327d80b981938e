"""The reader of pictures and captions: every kind that people have, read rightly or refused by name."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from efface.files import open_picture, read_pictures


def write_picture(path: Path, colour: tuple[int, ...], size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path)


def test_pictures_are_captioned_by_subfolder(tmp_path):
    write_picture(tmp_path / "a cat" / "1.png", (255, 0, 0))
    write_picture(tmp_path / "a cat" / "2.PNG", (0, 255, 0))
    write_picture(tmp_path / "a dog" / "1.png", (0, 0, 255), mode="L")
    write_picture(tmp_path / "loose.bmp", (1, 2, 3), size=(16, 4))
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
    write_picture(tmp_path / "x" / "1.png", (255, 0, 0))
    write_picture(tmp_path / "x" / "2.png", (0, 255, 0))
    rows = '{"file_name": "x/1.png", "text": "a red thing"}\n\n'
    (tmp_path / "metadata.jsonl").write_text(rows)
    assert list(read_pictures(tmp_path, 4)) == ["a red thing", "x"]
    (tmp_path / "metadata.jsonl").write_text(rows + '{"file_name": "x/2.png"}\n')
    with pytest.raises(ValueError, match=r"metadata.jsonl, line 3: a row has file_name and text"):
        read_pictures(tmp_path, 4)


def test_pictures_are_cut_about_their_middle(tmp_path):
    wide = Image.new("RGB", (30, 10), (255, 255, 255))
    wide.paste((0, 0, 0), (10, 0, 20, 10))
    wide.save(tmp_path / "wide.png")
    assert read_pictures(tmp_path, 10)[""].max() == 0


def test_unreadable_pictures_are_named(tmp_path):
    write_picture(tmp_path / "good.png", (1, 1, 1))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"2 files are no readable pictures in .*: bad.png, cut.png"):
        read_pictures(tmp_path, 4)


def test_folders_without_pictures(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no picture; wanted .png"):
        read_pictures(tmp_path, 4)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        read_pictures(tmp_path / "nowhere", 4)
    (tmp_path / "a.heic").touch()
    with pytest.raises(FileNotFoundError, match=r"holds no picture; wanted .png.*; there are a.heic"):
        read_pictures(tmp_path, 4)


def read_first(file: Path) -> list[int]:
    return list(np.asarray(open_picture(file))[0, 0])


def test_a_picture_stands_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 2), "white")
    image.paste((255, 0, 0), (0, 0, 1, 2))  # the left column is red
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: the left column is the top row
    image.save(tmp_path / "a.png", exif=exif)
    assert open_picture(tmp_path / "a.png").size == (2, 4)
    assert np.asarray(open_picture(tmp_path / "a.png"))[0].tolist() == [[255, 0, 0]] * 2
    assert read_pictures(tmp_path, 2)[""].shape == (1, 3, 2, 2)


def test_transparent_ground_is_white(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (0, 0, 255, 0)).save(tmp_path / "rgba.png")
    Image.new("LA", (2, 2), (0, 0)).save(tmp_path / "la.png")
    Image.new("RGBA", (2, 2), (0, 0, 0, 128)).save(tmp_path / "half.webp", lossless=True, exact=True)
    palette = Image.new("P", (2, 2), 3)
    palette.putpalette([9] * 30)
    palette.save(tmp_path / "p.png", transparency=3)
    palette.save(tmp_path / "p.gif", transparency=3)
    Image.new("RGB", (2, 2), (1, 2, 3)).save(tmp_path / "key.png", transparency=(1, 2, 3))
    for name in ("rgba.png", "la.png", "p.png", "p.gif", "key.png"):
        assert read_first(tmp_path / name) == [255] * 3, name
    assert read_first(tmp_path / "half.webp") == [127] * 3
    Image.new("RGBA", (2, 2), (7, 8, 9, 255)).save(tmp_path / "opaque.png")
    assert read_first(tmp_path / "opaque.png") == [7, 8, 9]


def test_sixteen_bits_and_floating_point_numbers_are_scaled(tmp_path: Path) -> None:
    for value in (0, 257 * 100, 65535):
        for name in ("a.png", "a.tiff"):
            Image.fromarray(np.full((2, 2), value, np.uint16)).save(tmp_path / name)
            assert read_first(tmp_path / name) == [round(value / 257)] * 3
    for value in (0, 0.5, 1):
        Image.fromarray(np.full((2, 2), value, np.float32)).save(tmp_path / "f.tiff")
        assert read_first(tmp_path / "f.tiff") == [np.rint(255 * value)] * 3
    for value in (200, -1, np.nan, np.inf):
        Image.fromarray(np.full((2, 2), value, np.float32)).save(tmp_path / "f.tiff")
        with pytest.raises(
            ValueError, match=r"f.tiff is no readable picture \(its numbers .* from 0, black, to 1, white"
        ):
            open_picture(tmp_path / "f.tiff")
    for kind, name in ((np.int32, "i.tiff"), (np.uint16, "i.png")):
        Image.fromarray(np.full((2, 2), 255, kind)).save(tmp_path / name)
        with pytest.raises(ValueError, match=r"its numbers go to 255 of 65535, .* if white is 255, save it in 8 bits"):
            open_picture(tmp_path / name)
    Image.fromarray(np.full((2, 2), 10**6, np.int32)).save(tmp_path / "i.tiff")
    with pytest.raises(ValueError, match="from 0, black, to 65535, white"):
        open_picture(tmp_path / "i.tiff")


@pytest.mark.parametrize(
    ("mode", "name"),
    [("P", "a.png"), ("1", "a.bmp"), ("L", "a.pgm"), ("CMYK", "a.jpg"), ("CMYK", "a.tif"), ("YCbCr", "a.jfif")],
)
def test_every_kind_of_colour_becomes_rgb(tmp_path: Path, mode: str, name: str) -> None:
    write_picture(tmp_path / name, (255, 255, 255), mode=mode)
    assert open_picture(tmp_path / name).mode == "RGB" and min(read_first(tmp_path / name)) > 250


def test_of_animations_the_first_picture_is_read_and_they_are_counted(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "lime")]
    for name in ("a.gif", "b.png", "c.webp", "d.tiff"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    write_picture(tmp_path / "still.png", (255, 0, 0))
    with pytest.warns(UserWarning, match=r"4 files hold several pictures, of which the first is read: a.gif, b.png"):
        read = read_pictures(tmp_path, 4)[""]
    assert (read[:, 0] > 250).all() and (read[:, 1:] < 5).all() and len(read) == 5


def test_every_common_suffix_is_read_and_what_is_not_is_named(tmp_path: Path) -> None:
    names = [f"a.{s}" for s in ("png", "JPG", "jpeg", "webp", "bmp", "gif", "tif", "tiff", "ppm", "tga", "avif")]
    for name in names:
        Image.new("RGB", (16, 16), "white").save(tmp_path / name)
    for name in ("x.heic", "y.svg", "._a.png", ".hidden/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"?")
    (tmp_path / "README.md").touch()
    Image.new("RGB", (16, 16), "white").save(tmp_path / "b", format="JPEG")
    Image.new("RGB", (16, 16), "white").save(tmp_path / "c.png~", format="PNG")
    (tmp_path / "notes").write_bytes(b"RIFF")
    says = r"6 files are left out, .*: \._a.png, \.hidden/a.png, b, c.png~, x.heic and 1 more"
    with pytest.warns(UserWarning, match=says):
        assert len(read_pictures(tmp_path, 8)[""]) == len(names)


def test_folders_that_are_links_are_followed_each_once(tmp_path: Path) -> None:
    write_picture(tmp_path / "else" / "a.png", (1, 1, 1))
    write_picture(tmp_path / "here" / "dog" / "b.png", (1, 1, 1))
    for name, to in (("cat", "else"), ("again", "here/dog"), ("dog/up", "here")):
        (tmp_path / "here" / name).symlink_to(tmp_path / to)
    (tmp_path / "here" / "broken.png").symlink_to(tmp_path / "nowhere")
    read = read_pictures(tmp_path / "here", 4)
    assert {caption: len(pictures) for caption, pictures in read.items()} == {"cat": 1, "dog": 1}


def test_a_picture_of_too_many_pixels_is_refused_in_one_sentence(tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match=r"bomb.png has more than 179 million pixels; scale it down"):
        open_picture(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match=r"1 file is no readable picture in .*: bomb.png \(the first: .*179 million"):
        read_pictures(tmp_path, 4)
    Image.new("1", (10_000, 10_000)).save(tmp_path / "bomb.png")
    assert open_picture(tmp_path / "bomb.png").size == (10_000, 10_000)


LISTED = [
    ("metadata.jsonl", json.dumps({"file_name": "a.png", "text": "a café"}).encode()),
    ("metadata.jsonl", codecs.BOM_UTF8 + b'{"file_name": "a.png", "text": "a caf\xc3\xa9"}\r\n'),
    ("metadata.jsonl", '{"file_name": "./a.png", "caption": "a café"}'.encode("utf-16")),
    ("metadata.csv", "file_name,text,other\na.png,a café,\n".encode()),
    ("metadata.csv", codecs.BOM_UTF8 + b'file_name,text\na.png,"a caf\xc3\xa9"\n'),
    ("metadata.csv", b"file_name,prompt\na.png,a caf\xe9\n"),
    ("Metadata.CSV", "file_name,text\na.png,a café\n".encode()),
    ("a.TXT", "a café\n".encode()),
    ("a.txt", "a café\n".encode()),
    ("a.txt", "a café\nanother line".encode()),
    ("a.caption", codecs.BOM_UTF8 + "a café".encode()),
    ("a.png.txt", "a café".encode()),
]


@pytest.mark.parametrize("place", [".", "sub"])
@pytest.mark.parametrize(("name", "content"), LISTED)
def test_captions_come_by_every_convention(tmp_path: Path, name: str, content: bytes, place: str) -> None:
    write_picture(tmp_path / place / "a.png", (1, 1, 1))
    (tmp_path / place / name).write_bytes(content)
    assert list(read_pictures(tmp_path, 4)) == ["a café"]


def test_a_list_as_parquet_and_folders_with_a_number_of_repeats(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", (1, 1, 1))
    write_picture(tmp_path / "10_a cat" / "a.png", (1, 1, 1))
    pq.write_table(pa.table({"file_name": ["a.png"], "text": ["a dog"]}), tmp_path / "metadata.parquet")
    assert list(read_pictures(tmp_path, 4)) == ["a cat", "a dog"]


def test_a_list_goes_before_a_file_beside_the_picture_and_that_before_the_folder(tmp_path: Path) -> None:
    for name in "abc":
        write_picture(tmp_path / "x" / f"{name}.png", (1, 1, 1))
    (tmp_path / "metadata.csv").write_text("file_name,text\nx/a.png,listed\n")
    (tmp_path / "x" / "a.txt").write_text("beside")
    (tmp_path / "x" / "b.txt").write_text("beside")
    assert list(read_pictures(tmp_path, 4)) == ["listed", "beside", "x"]


def test_captions_without_a_picture_are_counted_and_named(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", (1, 1, 1))
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,x\ngone.png,y\n")
    with pytest.warns(UserWarning, match=r"1 caption has no picture: gone.png"):
        read_pictures(tmp_path, 4)
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "b.txt").write_text("y")
    with pytest.warns(UserWarning, match=r"1 caption has no picture: b.txt"):
        read_pictures(tmp_path, 4)


def test_a_list_names_pictures_in_either_unicode_form(tmp_path: Path) -> None:
    write_picture(tmp_path / "cafe\u0301.png", (1, 1, 1))
    (tmp_path / "metadata.csv").write_text("file_name,text\ncaf\u00e9.png,x\n", encoding="utf-8")
    assert list(read_pictures(tmp_path, 4)) == ["x"]


@pytest.mark.parametrize("name", ["captions.json", "labels.csv", "meta_cap.json", "a.json", "list.tsv"])
def test_files_that_may_hold_captions_and_are_not_read_are_named(tmp_path: Path, name: str) -> None:
    write_picture(tmp_path / "a.png", (1, 1, 1))
    (tmp_path / name).write_text('{"a.png": "a cat"}')
    with pytest.warns(UserWarning, match=rf"1 file may hold captions, which are read from metadata.jsonl.*: {name}"):
        assert list(read_pictures(tmp_path, 4)) == [""]
    (tmp_path / "a.txt").write_text("a cat")  # the caption; what lies beside it too is not needed
    if name == "a.json":
        assert list(read_pictures(tmp_path, 4)) == ["a cat"]


def test_pictures_without_a_caption_beside_others_are_named(tmp_path: Path) -> None:
    for name in "ab":
        write_picture(tmp_path / f"{name}.png", (1, 1, 1))
    (tmp_path / "metadata.csv").write_text("file_name,text\nb.png,x\n")
    with pytest.warns(UserWarning, match=r'1 picture has no caption, so that "" is taken: a.png'):
        assert list(read_pictures(tmp_path, 4)) == ["", "x"]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"metadata.csv": "file_name,text\na.png,x\na.png,y"}, "line 3: a.png has a caption on an earlier line"),
        ({"metadata.jsonl": "{"}, "metadata.jsonl, line 1: "),
        ({"metadata.jsonl": '\n{"a.png": "x"}\n{}'}, "metadata.jsonl, line 2: a row has file_name and text"),
        ({"metadata.jsonl": '\n["a.png", "x"]\n{}'}, "metadata.jsonl, row 2: it is neither an object nor a prompt"),
        ({"metadata.csv": "picture,words\na.png,x"}, "metadata.csv, line 2: a row has file_name and text"),
        ({"a.txt": "x", "a.caption": "y"}, r"a.png has several captions, in a.txt and a.caption"),
    ],
)
def test_captions_that_cannot_be_read_are_named(tmp_path: Path, files: dict[str, str], says: str) -> None:
    write_picture(tmp_path / "a.png", (1, 1, 1))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=says):
        read_pictures(tmp_path, 4)
