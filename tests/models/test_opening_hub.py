"""Models by a hub id: what is fetched, and the hub's cache where there is no network."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

import efface
from efface.cli.app import main
from efface.models import segmenter
from efface.scorers._networks import read_config
from hub_stand_in import serve
from opening_fixtures import TEXT, UNET
from tiny import tiny_pipeline


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A stored model whose U-Net has the variant fp16 alone."""
    tiny_pipeline().save_pretrained(tmp_path / "sd")
    (tmp_path / "sd" / UNET).rename(tmp_path / "sd/unet/diffusion_pytorch_model.fp16.safetensors")
    return tmp_path / "sd"


def test_of_a_hub_id_only_what_is_opened_is_fetched(tmp_path, monkeypatch, folder) -> None:
    plain = efface.load(str(folder), device="cpu").fingerprint()
    (folder / "unet/diffusion_pytorch_model.ema.safetensors").write_text("large")
    (folder / "vae/diffusion_pytorch_model.bin").write_text("a pickle")
    files = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
    asked: list[str] = []

    def download(name: str, allow_patterns: list[str], **_more: object) -> str:
        asked.extend(allow_patterns)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda *_: files)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda _name, file: str(folder / file))
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with serve() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        assert efface.load("owner/name", device="cpu", variant="fp16").fingerprint() == plain
    weights = [name for name in asked if name.endswith((".safetensors", ".bin"))]
    assert sorted(weights) == [TEXT, "unet/diffusion_pytorch_model.fp16.safetensors", "vae/" + Path(UNET).name]


@pytest.fixture
def unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that does not answer, with an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


COMMANDS = {
    "erase": ["erase", "uce", "--target", "cat", "--out", "{tmp}/new.safetensors"],
    "draw": ["draw", "--prompt", "a cat", "--out", "{tmp}/new"],
    "evaluate": ["evaluate", "--edit", "{tmp}/e.safetensors", "--out", "{tmp}/new"],
    "attack": ["attack", "--edit", "{tmp}/e.safetensors", "--out", "{tmp}/new"],
    "audit": ["audit", "--edit", "{tmp}/e.safetensors", "--out", "{tmp}/new"],
    "neurons": ["neurons", "--edit", "{tmp}/e.safetensors", "--concept", "cat", "--out", "{tmp}/new"],
    "takedown": ["takedown", "--target", "cat", "--out", "{tmp}/new"],
    "suite": ["suite", "new", "--target", "cat", "--out", "{tmp}/new.csv"],
    "export": ["export", "--edit", "{tmp}/e.safetensors", "--out", "{tmp}/new"],
}


@pytest.mark.usefixtures("unreachable")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("stabel-diffusion/sd", "the hub's cache has no such id, and the hub can't be asked"),
        ("glyps", "(did you mean 'glyphs'?): there is neither such a folder nor such an embedded model"),
    ],
)
def test_a_wrong_name_is_one_clear_line_at_once(command: str, name: str, why: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "e.safetensors").touch()
    began = time.monotonic()
    assert main([word.format(tmp=tmp_path) for word in [*COMMANDS[command], "--model", name]]) == 2
    assert time.monotonic() - began < 5
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: no model {name!r}") and why in line
    assert "an embedded model (glyphs, " in line and "), a diffusers folder, " in line and "would have worked" in line
    assert not list(tmp_path.glob("new*"))


def test_a_wrong_name_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from efface.cli.app import main\n"
        "for args in (['draw', '--prompt', 'a'], ['evaluate', '--edit', 'e'], ['takedown', '--target', 'cat']):\n"
        "    assert main([*args, '--model', 'glyps', '--out', 'new']) == 2\n"
        "    assert 'torch' not in sys.modules, args"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("unreachable")
def test_a_judge_or_segmenter_of_a_hub_out_of_reach_is_one_clear_error_soon() -> None:
    began = time.monotonic()
    with pytest.raises(ValueError, match="foo/bar is no network that transformers opens"):
        read_config("foo/bar")
    with pytest.raises(ValueError, match="no segmenter 'foo/bar'"):
        segmenter.open_segmenter("foo/bar", torch.device("cpu"))
    assert time.monotonic() - began < 5


def test_a_hub_that_answers_and_has_no_such_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as hub:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", refuse)
        with pytest.raises(ValueError, match=r"no model 'owner/nam': .*the hub has no model of this id, or none that"):
            efface.load("owner/nam", device="cpu")
        monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda *_: ["README.md"])
        with pytest.raises(ValueError, match=r"no diffusers pipeline, for it has no model_index.json"):
            efface.load("owner/nam", device="cpu")


def refuse(*_args: object) -> None:
    from huggingface_hub.errors import RepositoryNotFoundError

    raise RepositoryNotFoundError("404 Client Error", response=Mock())


def test_the_hubs_cache_is_a_folder_like_any_other(tmp_path, monkeypatch, folder) -> None:
    plain = efface.load(str(folder), device="cpu").fingerprint()
    commit, repository = 40 * "a", tmp_path / "hub/models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(commit)
    shutil.copytree(folder, repository / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    opened = efface.load("owner/name", device="cpu")
    assert (opened.name, opened.fingerprint()) == ("owner/name", plain)
    (repository / "snapshots" / commit / TEXT).write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="git-lfs pointer"):
        efface.load("owner/name", device="cpu")
