"""Models by a hub id: what is fetched, and the hub's cache where there is no network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import efface
from tiny import tiny_pipeline

UNET, TEXT = "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"


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
    assert efface.load("owner/name", device="cpu", variant="fp16").fingerprint() == plain
    weights = [name for name in asked if name.endswith((".safetensors", ".bin"))]
    assert sorted(weights) == [TEXT, "unet/diffusion_pytorch_model.fp16.safetensors", "vae/" + Path(UNET).name]


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
