from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from efface.evaluation.places import read_places
from efface.files import (
    check_file,
    check_folder,
    check_room,
    find_relative,
    hash_file,
    new_file,
    new_folder,
    open_picture,
    read_json,
    read_parquet,
    read_tensors,
    read_text,
    read_versioned,
    sweep,
    write_tensors,
    write_whole,
)
from efface.files.tensors import read_pickle
from efface.records.audit import read_audit
from efface.records.report import read_report


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
    with pytest.raises(FileNotFoundError, match=r"no file .*x$"):
        read_tensors(tmp_path / "x")


def test_a_folder_without_what_is_sought_is_told_from_none_and_from_a_file(tmp_path):
    (tmp_path / "cat-judged").mkdir()
    (tmp_path / "cat-judged" / "rows.parquet").touch()
    for read, name in ((read_report, "report.json"), (read_audit, "audit.json"), (read_places, "protocol.json")):
        with pytest.raises(FileNotFoundError, match=rf"cat-judged holds no {name}; give the --out of an `efface"):
            read(tmp_path / "cat-judged")
        with pytest.raises(FileNotFoundError, match=r"no folder .*cat-judge; did you mean 'cat-judged'\?; give the"):
            read(tmp_path / "cat-judge")
        with pytest.raises(FileNotFoundError, match=r"rows.parquet is a file; give its folder, .*cat-judged$"):
            read(tmp_path / "cat-judged" / "rows.parquet")


@pytest.mark.parametrize("read", [read_tensors, read_json, read_text, hash_file, open_picture, read_parquet])
def test_what_is_missing_is_said_with_what_was_meant(read, tmp_path):
    (tmp_path / "cat.safetensors").touch()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileNotFoundError, match=r"no file .*cat.safetensor; did you mean 'cat.safetensors'\?$"):
        read(tmp_path / "cat.safetensor")
    with pytest.raises(FileNotFoundError, match=r"no file .*cat.st; there is no folder .*nowhere$"):
        read(tmp_path / "nowhere" / "cat.st")
    with pytest.raises(FileNotFoundError, match=r"is a folder; name a file in it$"):
        read(tmp_path)


def test_unwritable_paths(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot write"):
        check_file(tmp_path / "file" / "x")
    with pytest.raises(OSError, match="it is a folder"):
        check_file(tmp_path)
    assert check_file(tmp_path / "new" / "x") == tmp_path / "new" / "x"


KILLED = """
import os, signal, sys
from pathlib import Path
from efface.files import new_file, new_folder
with new_file(Path(sys.argv[1]) / "x.bin") as file, new_folder(Path(sys.argv[1]) / "model") as folder:
    file.write_bytes(b"half")
    (folder / "weights").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_gone_after_the_next_write(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False).returncode == -9
    left = os.listdir(tmp_path)
    assert len(left) == 2 and all(name.startswith(".") for name in left)
    write_whole(tmp_path / "y", "whole")
    assert os.listdir(tmp_path) == ["y"]


def test_a_path_relative_to_a_folder_leads_there_also_through_links(tmp_path: Path) -> None:
    (tmp_path / "disk/deep/out").mkdir(parents=True)
    (tmp_path / "home/images").mkdir(parents=True)
    write_whole(tmp_path / "home/cat", "cat")
    (tmp_path / "home/out").symlink_to(tmp_path / "disk/deep/out")
    for folder in (tmp_path / "home/out", tmp_path / "disk/deep/out"):
        found = find_relative(tmp_path / "home/cat", folder)
        assert not os.path.isabs(found) and (folder / found).read_text() == "cat"
        assert (folder / find_relative(tmp_path / "home/images", folder)).is_dir()
    (tmp_path / "home/out/images").symlink_to(tmp_path / "home/images")
    assert find_relative(tmp_path / "home/out/images", tmp_path / "home/out") == "images", "its own link stays"


def test_several_may_replace_one_folder_at_once(tmp_path: Path) -> None:
    def replace(_: int) -> None:
        with new_folder(tmp_path / "chunk", replace=True) as made:
            for name in "abcd":
                (made / name).write_bytes(bytes(1000))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(replace, range(400)))
    assert os.listdir(tmp_path) == ["chunk"] and sorted(os.listdir(tmp_path / "chunk")) == list("abcd")


def test_temporaries_of_living_processes_and_other_machines_stay(tmp_path: Path) -> None:
    (tmp_path / ".x.efface-00000000-999999999-0123abcd").touch()
    (tmp_path / ".x-yz").touch()
    with new_file(tmp_path / "x") as mine:
        mine.touch()
        assert sweep(tmp_path) == []
    assert sorted(os.listdir(tmp_path)) == [".x-yz", ".x.efface-00000000-999999999-0123abcd", "x"]


@contextmanager
def fill_disk() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_sentence_with_the_path_and_leaves_nothing(tmp_path: Path) -> None:
    big = {"a": torch.zeros(10_000)}
    path = tmp_path / "x"
    with fill_disk():
        with pytest.raises(OSError, match=rf"^cannot write {path}: File too large$"):
            write_whole(path, b"x" * 5000)
        with pytest.raises(OSError, match=rf"^cannot write {path}: .*File too large"):
            write_tensors(path, big, {})
        with (
            pytest.raises(OSError, match=rf"^cannot write {path}: .*File too large"),
            new_folder(path) as made,
        ):
            save_file(big, made / "weights")
        with (
            pytest.raises(OSError, match=rf"^cannot write {path}/weights: File too large$"),
            new_folder(path) as made,
        ):
            write_whole(made / "weights", b"x" * 5000)
    assert os.listdir(tmp_path) == []


def test_errors_about_other_files_are_left_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="elsewhere"), new_file(tmp_path / "a" / "x"):
        Path("/elsewhere/y").read_bytes()
    with pytest.raises(OSError, match=r"^cannot write .*/a/x: Read-only"), new_file(tmp_path / "a" / "x"):
        raise OSError(errno.EROFS, "Read-only file system")
    with pytest.raises(OSError, match=r"^cannot write .*/x: odd"), new_folder(tmp_path / "x"):
        raise SafetensorError("odd")


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "x") as made:
        (made / "a").touch()
        _ = 1 / 0
    assert os.listdir(tmp_path) == []
    for name in ("a", "b"):
        with new_folder(tmp_path / "x", replace=True) as made:
            (made / name).touch()
    assert os.listdir(tmp_path / "x") == ["b"]
    with pytest.raises(FileExistsError, match="exists; name a folder"), new_folder(tmp_path / "x"):
        pytest.fail("it was begun")


def test_names_longer_than_a_file_system_allows_beside_a_suffix_are_written(tmp_path: Path) -> None:
    path = write_whole(tmp_path / ("é" * 120), "text")
    assert path.read_text() == "text" and os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"version": 2}', "is of version 2; this efface reads version 3"),
        ("[1]", "has no version number, so it is a file of another kind, or damaged; run it again"),
        ('{"version": 3, "x": "many"}', "is damaged .*; run it again"),
        ('{"version": 3', "is damaged .*; run it again"),
        ("[" * 100_000, "is damaged .*; run it again"),
    ],
)
def test_records_of_other_versions_and_damaged_ones_are_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ValueError, match=f"r.json {says}"):
        read_versioned(tmp_path / "r.json", 3, lambda data: int(data["x"]), "run it again")


def test_a_record_is_what_its_parser_makes_of_it(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"version": 3, "x": "5"}')
    assert read_versioned(tmp_path / "r.json", 3, lambda data: int(data["x"]), "") == 5


def test_files_can_be_written_without_torch() -> None:
    code = "import sys, efface.files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_full_disk_is_noticed_before_the_work(tmp_path: Path) -> None:
    """An empty file can be made on a full disk too."""
    with fill_disk():
        for check in (check_file, check_folder):
            with pytest.raises(OSError, match=rf"^cannot write (in )?{tmp_path}/deep/x: File too large$"):
                check(tmp_path / "deep" / "x")
    free = shutil.disk_usage(tmp_path).free
    check_room(tmp_path / "deep" / "x", free // 2)
    with pytest.raises(
        OSError, match=r"^cannot write .*/x: it takes \d+\.\d MB or more, and the disk has \d+\.\d MB free"
    ):
        check_room(tmp_path / "deep" / "x", free * 2)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("held", [b"", b"hello", b"\x80", b"PK\x03\x04", b"q" * 40])
def test_a_damaged_pickle_is_refused_in_one_sentence(held: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(held)
    with pytest.raises(ValueError, match=r"^\S+x.pt can't be opened with weights_only \(.+\); a pickle of a dict of"):
        read_pickle(tmp_path / "x.pt")
