from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import save_file

from efface.store import check_writable, read_tensors, write_tensors


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
