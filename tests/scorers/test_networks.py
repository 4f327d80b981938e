"""A scorer's folder is data: no code of it runs, a pickle is read as tensors alone, damage is said with its name."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    ConvNextImageProcessor,
    ResNetConfig,
    ResNetForImageClassification,
)

from efface.scorers._networks import open_network, open_part, read_config
from efface.scorers.classifier import Classifier
from efface.suites.spec import Row

CODE = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nclass Own: pass\n"
ROW = Row("0", "a cat", 0, "target", "erase", "object", "cat", ("cat",))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny classifier."""
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], id2label={0: "cat", 1: "dog"})
    ResNetForImageClassification(config).save_pretrained(tmp_path)
    ConvNextImageProcessor(size={"shortest_edge": 32}).save_pretrained(tmp_path)
    return tmp_path


def change(file: Path, **facts: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))


def score(folder: Path) -> Any:
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    return Classifier(str(folder)).score(images, [ROW], images)


@pytest.mark.parametrize("model_type", ["resnet", "own", None])
def test_code_in_a_scorers_folder_is_never_run_nor_asked_about(
    folder: Path, model_type: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    (folder / "own.py").write_text(CODE)
    own = {"AutoConfig": "own.Own", "AutoModelForImageClassification": "own.Own", "AutoImageProcessor": "own.Own"}
    change(folder / "config.json", auto_map=own, model_type=model_type, architectures=["Own"])
    change(folder / "preprocessor_config.json", auto_map=own)
    if model_type == "resnet":  # transformers knows it by itself
        assert score(folder)[0].value is not None
    else:
        with pytest.raises(ValueError, match=rf"^{folder} is no network that transformers opens \("):
            Classifier(str(folder)).check([ROW])
    assert not (folder / "ran").exists()


def test_a_pickle_is_read_as_tensors_alone_with_a_word(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.warns(UserWarning, match="the weights in .* are a pickle, which is read as tensors alone"):
        network = open_network(AutoModelForImageClassification, str(folder))
    assert all(torch.equal(network.state_dict()[name], value) for name, value in weights.items())


class Bomb:
    """A pickle that runs code when it is opened."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_a_pickle_with_code_is_refused_and_none_of_it_runs(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(folder / "ran"), 2))
    with (
        pytest.warns(UserWarning, match="are a pickle"),
        pytest.raises(ValueError, match=rf"^{folder} is no network that transformers opens"),
    ):
        open_network(AutoModelForImageClassification, str(folder))
    assert not (folder / "ran").exists()


def test_safetensors_go_before_a_pickle(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(folder / "ran"), 2))
    open_network(AutoModelForImageClassification, str(folder))
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"[1]"),
        ("config.json", b"{"),
        ("config.json", b'{"model_type": 3}'),
        ("config.json", b'{"model_type": "resnet", "hidden_sizes": "many"}'),
        ("model.safetensors", b"cut"),
        ("preprocessor_config.json", b"[]"),
        ("preprocessor_config.json", b"\xff\xfe"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{folder} is no network that transformers opens \("):
        read_config(str(folder))
        open_network(AutoModelForImageClassification, str(folder))
        open_part(AutoImageProcessor, str(folder))


def test_weights_that_lack_a_tensor_are_refused_and_not_made_up(folder: Path) -> None:
    from safetensors.torch import save_file

    weights = load_file(folder / "model.safetensors")
    weights.pop("classifier.1.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"its weights lack classifier.1.weight \(1 such\)"):
        open_network(AutoModelForImageClassification, str(folder))
