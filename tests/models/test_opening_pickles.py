"""Pickles, and code that comes with a model: only tensors are read, and nothing is run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import efface
from opening_fixtures import UNET, edit_json


def test_a_pickle_is_read_as_tensors_alone_and_said(folder: Path) -> None:
    plain = efface.load(str(folder), device="cpu").fingerprint()
    torch.save(load_file(folder / UNET), folder / "unet/diffusion_pytorch_model.bin")
    assert efface.load(str(folder), device="cpu").fingerprint() == plain  # safetensors come first, and no word
    (folder / UNET).unlink()
    with pytest.warns(UserWarning, match=r"diffusion_pytorch_model\.bin is a pickle, from which only tensors are read"):
        assert efface.load(str(folder), device="cpu").fingerprint() == plain


class Hostile:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (Path.mkdir, (Path("/tmp/efface-was-run"),))  # type: ignore[return-value]


@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model", "text_encoder/model"])
@pytest.mark.filterwarnings("ignore:.*is a pickle")
def test_a_pickle_that_holds_more_than_tensors_is_refused(folder: Path, part: str) -> None:
    file = folder / f"{part}.safetensors"
    held = {**load_file(file), "extra": Hostile()}
    file.unlink()
    torch.save(held, file.with_name("pytorch_model.bin" if "text" in part else "diffusion_pytorch_model.bin"))
    with pytest.raises(ValueError, match=r"\.bin can't be opened"):
        efface.load(str(folder), device="cpu")
    assert not Path("/tmp/efface-was-run").exists()


@pytest.mark.parametrize(
    ("part", "kind", "settings"),
    [("text_encoder", "AutoModel", "config.json"), ("tokenizer", "AutoTokenizer", "tokenizer_config.json")],
)
def test_code_that_a_part_brings_for_an_open_class_is_not_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, kind: str, settings: str
) -> None:
    """transformers would ask whether to run it, and whoever says yes runs it."""
    run = tmp_path / "was-run"
    (folder / part / "mine.py").write_text(f"open({str(run)!r}, 'w')\nclass Mine: pass\n")
    named = {"AutoConfig": "mine.Mine", "AutoModel": "mine.Mine", "AutoTokenizer": ["mine.Mine", None]}
    edit_json(folder / part / settings, auto_map=named)
    edit_json(folder / "model_index.json", **{part: ["transformers", kind]})
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(
        ValueError, match=rf"{settings} names code that comes with the model \(auto_map\), .* {kind} would"
    ):
        efface.load(str(folder), device="cpu")
    assert not run.exists()


@pytest.mark.parametrize("name", ["x.ckpt", "x.pt", "x.bin", "x.pth", "x.CKPT"])
@pytest.mark.parametrize("tail", ["", "@plain"])
@pytest.mark.parametrize("there", [True, False])
def test_a_pickle_by_its_name_is_never_a_hub_id(tmp_path, monkeypatch, name, tail, there) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    if there:
        (tmp_path / "models" / name).write_bytes(b"\x80\x04")
    said = (
        "is a pickle, which is not opened.*convert it to .safetensors" if there else "is not there; a pickle would not"
    )
    with pytest.raises(ValueError, match=rf"models/{name} {said}.* give FILE\.safetensors@FOLDER"):
        efface.load(f"models/{name}{tail}", device="cpu")
