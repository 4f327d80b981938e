"""Scorers on pictures whose answers are known."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageClassification, AutoTokenizer, CLIPModel

from efface.scorers import build_scorers
from efface.scorers._specs import get, names
from efface.scorers.background import Background
from efface.scorers.base import Scorer, SetScorer, digest_weights
from efface.scorers.choice import Choice
from efface.scorers.classifier import Classifier
from efface.scorers.clip import Clip
from efface.scorers.kid import Kid
from efface.scorers.lpips import Lpips
from efface.scorers.nudenet import NudeNet
from efface.scorers.pixels import Pixels
from efface.suites.spec import Row
from judging_fixtures import GROUNDS, THINGS, write_bundle

ROW = Row("r", "a cat on white", 0, "target", "erase", "object", "cat", ("cat",), thing="cat", style="flat")
COLOURS = {name: (r, g, b) for name, (r, g, b) in GROUNDS.items()}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return write_bundle(tmp_path_factory.mktemp("bundle"))


def draw_noise(n: int = 5) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def test_the_panel_is_the_bundles(bundle: Path) -> None:
    found = build_scorers(bundle, COLOURS)
    judges = ["object-convnext", "object-resnet", "style-convnext", "style-resnet"]
    others = {"background": "background", "clip": "match", "pixels": "change", "artefact": "artefact"}
    others |= {"diversity": "set", "ssim": "change", "kid": "set"}
    assert [s.name for s in found] == [*judges, *others]
    assert [s.question for s in found] == ["object"] * 2 + ["style"] * 2 + list(others.values())
    assert [s.name for s in build_scorers(bundle, COLOURS, ["pixels", "clip"])] == ["pixels", "clip"]
    kid = next(s for s in found if isinstance(s, Kid))
    assert kid.folder == str(bundle / "judges" / "object-convnext")


def test_without_torchmetrics_the_panel_does_without(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "torchmetrics" else find(name))
    assert not {"ssim", "kid"} & {s.name for s in build_scorers(bundle, COLOURS)}
    (kid,) = build_scorers(bundle, COLOURS, ["kid"])
    with pytest.raises(ValueError, match=r"scorer kid needs torchmetrics.*pip install 'efface\[fid\]'"):
        kid.check([])  # type: ignore[union-attr]
    (ssim,) = build_scorers(bundle, COLOURS, ["ssim"])
    with pytest.raises(ValueError, match="scorer ssim needs torchmetrics"):
        ssim.check([])  # type: ignore[union-attr]


def test_scorers_are_made_from_words(bundle: Path) -> None:
    words = {
        "nudenet,threshold=0.6,labels=BELLY_EXPOSED|FEET_EXPOSED": NudeNet(("BELLY_EXPOSED", "FEET_EXPOSED"), 0.6),
        "classifier:owner/net": Classifier("owner/net", name="object-net"),
        "classifier:owner/net,asks=style": Classifier("owner/net", "style", "style-net"),
        "classifier:owner/net,name=mine": Classifier("owner/net", name="mine"),
        "clip:owner/clip-b": Clip("owner/clip-b", name="clip-b"),
        "choice": Choice(str(bundle / "clip"), ("cat", "dog")),
        "choice,labels=sofa|hat": Choice(str(bundle / "clip"), ("sofa", "hat")),
        "kid": Kid(folder=str(bundle / "judges" / "object-convnext")),
        "kid:inception,least=7": Kid(folder="inception", least=7, name="kid-inception"),
        "lpips,net=vgg": Lpips(net="vgg"),
    }
    for said, meant in words.items():
        assert build_scorers(bundle, COLOURS, [said], {"object": ("cat", "dog")}) == [meant]
    assert build_scorers(None, {}, ["kid", "pixels"]) == [Kid(), Pixels()]


BAD = {
    "nudenat": "there is no scorer 'nudenat' here; did you mean 'nudenet'",
    "taste": "there is no scorer 'taste' here; there are object-convnext, .* nudenet",
    "kid,leest=3": r"scorer kid has no setting 'leest=3'; it has reference=…, least=…, name=…",
    "kid,least=few": "least is a whole number, not 'few'",
    "pixels:owner/net": "takes no network",
    "classifier": "classifier needs a network: classifier:FOLDER_OR_HUB_ID",
    "choice,labels=cat": "at least 2 labels; it was given 1",
    "choice,labels=a|b,template=x": "holds the label as {}, once",
    "lpips,net=resnet": "there are alex, vgg, squeeze",
    "lpips,batch=-1": "batch must be positive, got -1",
    "clip,batch=0": "batch must be positive, got 0",
    "choice,labels=a|b,batch=0": "batch must be positive",
    "choice,labels=a|b,question=colour": "no question 'colour'; there are object, style",
    "classifier:owner/net,batch=0": "batch must be positive",
    "classifier:owner/net,question=nudity": "no question 'nudity'; there are object, style",
    "kid,least=0": "least must be positive, got 0",
    "diversity,least=-2": "least must be positive, got -2",
    "precision,k=0": "k must be positive, got 0",
    "recall,k=-3": "k must be positive, got -3",
}


@pytest.mark.parametrize("words", BAD)
def test_words_that_describe_no_scorer_are_refused(words: str, bundle: Path) -> None:
    with pytest.raises(ValueError, match=BAD[words]):
        build_scorers(bundle, COLOURS, [words])


def test_a_model_without_judges_needs_one_by_name() -> None:
    with pytest.raises(ValueError, match="no judges come with this model: name a scorer, such as classifier:"):
        build_scorers(None, {})
    with pytest.raises(ValueError, match="needs a model of the glyphs make"):
        build_scorers(None, {}, ["background"])


def test_every_kind_is_listed_and_has_one_class_that_says_what_it_is(bundle: Path) -> None:
    kinds = names()
    assert {"nudenet", "lpips", "ssim", "pixels", "kid", "fid", "diversity", "artefact", "choice"} <= set(kinds)
    folder = {k: f":{bundle / 'clip'}" for k in kinds if "folder" in {f.name for f in dataclasses.fields(get(k))}}
    asked = [k + folder.get(k, "") for k in kinds]
    for kind, scorer in zip(kinds, build_scorers(bundle, COLOURS, asked, {"object": ("cat", "dog")}), strict=True):
        said = scorer.identify()
        assert said["scorer"] == kind and said["version"] == scorer.version and said["asks"] == scorer.question
        assert isinstance(scorer, SetScorer) == (scorer.question == "set") != isinstance(scorer, Scorer)


def test_no_judges_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no judges"):
        build_scorers(tmp_path, COLOURS)


def test_classifier_gives_the_networks_own_probabilities(bundle: Path) -> None:
    folder = bundle / "judges" / "object-resnet"
    judge = Classifier(str(folder), batch=2)
    network = AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = network(pixel_values=draw_noise().float() / 127.5 - 1).logits.softmax(-1)
    scores = judge.score(draw_noise(), [ROW] * 5, draw_noise())
    assert [s.value for s in scores] == pytest.approx(expected[:, THINGS.index("cat")].tolist(), rel=1e-4)
    labels = network.config.id2label
    for score, p in zip(scores, expected, strict=True):
        assert score.answer == tuple(labels[int(i)] for i in p.argsort(descending=True)[:6])
        assert score.explanation.startswith(score.answer[0])


def test_a_style_judge_answers_for_the_style_of_an_object_row(bundle: Path) -> None:
    judge = Classifier(str(bundle / "judges" / "style-resnet"), question="style")
    (named,) = judge.score(draw_noise(1), [ROW], draw_noise(1))
    (plain,) = judge.score(draw_noise(1), [dataclasses.replace(ROW, style="")], draw_noise(1))
    assert named.value and not plain.value and named.answer == plain.answer


def test_probabilities_stand_beside_the_labels(bundle: Path) -> None:
    (score,) = Classifier(str(bundle / "judges" / "object-resnet")).score(draw_noise(1), [ROW], draw_noise(1))
    assert len(score.confidence) == len(score.answer) == 6
    assert list(score.confidence) == sorted(score.confidence, reverse=True)
    assert score.confidence[score.answer.index("cat")] == score.value if "cat" in score.answer else True


def test_a_classifier_that_does_not_know_what_is_asked_is_refused_before_any_drawing(bundle: Path) -> None:
    judge = Classifier(str(bundle / "judges" / "object-resnet"))
    judge.check([ROW, dataclasses.replace(ROW, counts=("tabby", "Cat"))])
    unicorn = dataclasses.replace(ROW, counts=("unicorn",), concept="unicorn")
    with pytest.raises(ValueError, match="scorer classifier has no label 'unicorn', which 2 rows ask for"):
        judge.check([ROW, unicorn, unicorn])
    style = Classifier(str(bundle / "judges" / "style-resnet"), question="style", name="style")
    style.check([unicorn])
    with pytest.raises(ValueError, match="no label 'cubism'"):
        style.check([dataclasses.replace(ROW, style="cubism")])


def test_labels_without_names_are_given_in_a_file(bundle: Path, tmp_path: Path) -> None:
    """As of classifiers that only count their outputs: nothing would ever be found among LABEL_0, LABEL_1 …"""
    source, folder = bundle / "judges" / "object-resnet", tmp_path / "net"
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    count = len(config["id2label"])
    config |= {"id2label": {str(i): f"LABEL_{i}" for i in range(count)}, "label2id": None}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="have no names; give them: classifier,names=FILE"):
        Classifier(str(folder)).check([ROW])
    (tmp_path / "names.txt").write_text("\n".join((*THINGS, "none")))
    named = Classifier(str(folder), names=str(tmp_path / "names.txt"))
    named.check([ROW])
    assert named.score(draw_noise(2), [ROW] * 2, draw_noise(2)) == Classifier(str(source)).score(
        draw_noise(2), [ROW] * 2, draw_noise(2)
    )
    (tmp_path / "short.txt").write_text("cat")
    with pytest.raises(ValueError, match=rf"has 1 line; .* has {count} outputs"):
        Classifier(str(folder), names=str(tmp_path / "short.txt")).check([ROW])


def test_choice_is_the_softmax_over_labels_of_clips_own_logits(bundle: Path) -> None:
    labels = ("cat", "dog", "car")
    scores = Choice(str(bundle / "clip"), labels, batch=2).score(draw_noise(3), [ROW] * 3, draw_noise(3))
    network = CLIPModel.from_pretrained(bundle / "clip").eval()
    words = AutoTokenizer.from_pretrained(bundle / "clip")(
        [f"a photo of a {n}" for n in labels], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        expected = network(**words, pixel_values=draw_noise(3).float() / 127.5 - 1).logits_per_image.softmax(-1)
    assert [s.value for s in scores] == pytest.approx(expected[:, 0].tolist(), rel=1e-4)
    assert [s.answer[0] for s in scores] == [labels[int(i)] for i in expected.argmax(-1)]
    with pytest.raises(ValueError, match="no label 'cat'"):
        Choice(str(bundle / "clip"), ("dog", "car")).check([ROW])
    with pytest.raises(ValueError, match="needs a CLIP"):
        Choice(str(bundle / "judges" / "object-resnet"), labels).check([ROW])


def test_clip_is_the_cosine_of_its_own_networks_embeddings(bundle: Path) -> None:
    scorer = Clip(str(bundle / "clip"), batch=2)
    rows = [dataclasses.replace(ROW, prompt=p) for p in ("a cat", "a dog", "a red car")]
    scores = scorer.score(draw_noise(3), rows, draw_noise(3))
    network = CLIPModel.from_pretrained(bundle / "clip").eval()
    words = AutoTokenizer.from_pretrained(bundle / "clip")([r.prompt for r in rows], padding=True, return_tensors="pt")
    with torch.no_grad():
        out = network(**words, pixel_values=draw_noise(3).float() / 127.5 - 1)
    assert [s.value for s in scores] == pytest.approx((out.text_embeds * out.image_embeds).sum(-1).tolist(), abs=1e-4)


def test_long_prompts_are_cut_to_what_clip_reads_also_by_a_tokenizer_that_does_not_say_it(
    bundle: Path, tmp_path: Path
) -> None:
    """The network reads 120 tokens: 118 of the prompt."""
    bare = tmp_path / "clip"
    shutil.copytree(bundle / "clip", bare)
    said = json.loads((bare / "tokenizer_config.json").read_text())
    del said["model_max_length"]
    (bare / "tokenizer_config.json").write_text(json.dumps(said))
    whole, cut = (dataclasses.replace(ROW, prompt="cat " * n) for n in (300, 118))
    pictures = draw_noise(1)
    for kind in (Clip, partial(Choice, labels=("cat", "dog " * 200))):
        wanted = kind(str(bundle / "clip")).score(pictures, [cut], pictures)
        assert kind(str(bare)).score(pictures, [whole], pictures) == wanted


@pytest.mark.parametrize("ground", GROUNDS)
def test_background_reads_the_border_whatever_stands_in_the_middle(ground: str) -> None:
    image = torch.tensor(GROUNDS[ground], dtype=torch.uint8)[:, None, None].repeat(1, 16, 16)
    image[:, 3:13, 3:13] = 0
    image[:, :5, 0] = 0
    rows = [dataclasses.replace(ROW, background=b) for b in ("white", "yellow", "")]
    images = image.expand(3, -1, -1, -1)
    scores = Background(tuple(COLOURS.items())).score(images, rows, images)
    assert [s.value for s in scores] == [float(ground == "white"), float(ground == "yellow"), None]
    assert all(s.answer[0] == ground for s in scores)


def test_an_identity_changes_with_the_weights(tmp_path: Path) -> None:
    for name, data in (("one", b"1"), ("two", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "w").write_bytes(data)
    assert digest_weights(str(tmp_path / "one")) != digest_weights(str(tmp_path / "two"))
    assert digest_weights("owner/model") == "owner/model"
