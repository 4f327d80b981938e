"""Scorers on pictures whose answers are known."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageClassification, CLIPModel

from efface.scorers import names, panel
from efface.scorers.background import Background
from efface.scorers.base import weights_digest
from efface.scorers.classifier import Classifier
from efface.scorers.clip import Clip
from efface.suites import Row
from judging_fixtures import GROUNDS, THINGS, write_bundle

ROW = Row("r", "a cat on white", 0, "target", "erase", "object", "cat", ("cat",), thing="cat", style="flat")
COLOURS = {name: (r, g, b) for name, (r, g, b) in GROUNDS.items()}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return write_bundle(tmp_path_factory.mktemp("bundle"))


def noise(n: int = 5) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def test_the_folder_lists_the_scorers_and_the_panel_is_the_bundles(bundle: Path) -> None:
    assert names() == ["background", "classifier", "clip"]
    found = panel(bundle, COLOURS)
    judges = ["object-convnext", "object-resnet", "style-convnext", "style-resnet"]
    assert [s.name for s in found] == [*judges, "background", "clip"]
    assert [s.asks for s in found] == ["object"] * 2 + ["style"] * 2 + ["background", "match"]
    assert [s.name for s in panel(bundle, COLOURS, ["clip"])] == ["clip"]
    with pytest.raises(ValueError, match="there are object-convnext"):
        panel(bundle, COLOURS, ["nudenet"])


def test_no_judges_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no judges"):
        panel(tmp_path, COLOURS)


def test_classifier_gives_the_networks_own_probabilities(bundle: Path) -> None:
    folder = bundle / "judges" / "object-resnet"
    judge = Classifier(str(folder), batch=2)
    network = AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = network(pixel_values=noise().float() / 127.5 - 1).logits.softmax(-1)
    scores = judge.score(noise(), [ROW] * 5)
    assert [s.value for s in scores] == pytest.approx(expected[:, THINGS.index("cat")].tolist(), rel=1e-4)
    labels = network.config.id2label
    for score, p in zip(scores, expected, strict=True):
        assert score.answer == tuple(labels[int(i)] for i in p.argsort(descending=True)[:6])
        assert score.explanation.startswith(score.answer[0])


def test_a_style_judge_answers_for_the_style_of_an_object_row(bundle: Path) -> None:
    judge = Classifier(str(bundle / "judges" / "style-resnet"), asks="style")
    (named,) = judge.score(noise(1), [ROW])
    (plain,) = judge.score(noise(1), [dataclasses.replace(ROW, style="")])
    assert named.value and not plain.value and named.answer == plain.answer


def test_clip_is_the_cosine_of_its_own_networks_embeddings(bundle: Path) -> None:
    scorer = Clip(str(bundle / "clip"), batch=2)
    rows = [dataclasses.replace(ROW, prompt=p) for p in ("a cat", "a dog", "a red car")]
    scores = scorer.score(noise(3), rows)
    network = CLIPModel.from_pretrained(bundle / "clip").eval()
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(bundle / "clip")([r.prompt for r in rows], padding=True, return_tensors="pt")
    with torch.no_grad():
        out = network(**words, pixel_values=noise(3).float() / 127.5 - 1)
    assert [s.value for s in scores] == pytest.approx((out.text_embeds * out.image_embeds).sum(-1).tolist(), abs=1e-4)


@pytest.mark.parametrize("ground", GROUNDS)
def test_background_reads_the_border_whatever_stands_in_the_middle(ground: str) -> None:
    image = torch.tensor(GROUNDS[ground], dtype=torch.uint8)[:, None, None].repeat(1, 16, 16)
    image[:, 3:13, 3:13] = 0
    image[:, :5, 0] = 0
    rows = [dataclasses.replace(ROW, background=b) for b in ("white", "yellow", "")]
    scores = Background(tuple(COLOURS.items())).score(image.expand(3, -1, -1, -1), rows)
    assert [s.value for s in scores] == [float(ground == "white"), float(ground == "yellow"), None]
    assert all(s.answer[0] == ground for s in scores)


def test_an_identity_changes_with_the_weights(tmp_path: Path) -> None:
    for name, data in (("one", b"1"), ("two", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "w").write_bytes(data)
    assert weights_digest(str(tmp_path / "one")) != weights_digest(str(tmp_path / "two"))
    assert weights_digest("owner/model") == "owner/model"
