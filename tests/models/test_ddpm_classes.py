"""The classes of a class-conditional DDPM: prompts that name them, and names and networks that do not fit."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

from efface.concept import Prompt
from efface.models.adapters.ddpm import DDPM, open_folder
from efface.models.cond import Cond
from tiny_ddpm import CLASSES, tiny_ddpm


@pytest.mark.parametrize(
    ("prompt", "label"),
    [
        ("", 5),
        ("cat", 0),
        ("a cat", 0),
        ("A picture of a CAT, in watercolour", 0),
        ("hot dog", 2),
        ("a dog", 1),
        ("a dog beside a dog", 1),
        ("rose", 3),
        ("red car emoji", 4),
    ],
)
def test_what_a_prompt_means(prompt, label):
    model = tiny_ddpm()
    assert model.find_label(prompt) == label
    assert torch.equal(model.encode([prompt]).flatten(), torch.eye(6)[[label]])


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("cot", "'cot' names no class of tiny; did you mean 'cat'.* there are cat, dog, hot dog, Rose, red car"),
        ("a picture of a roze", "did you mean 'Rose'"),
        ("cats", "did you mean 'cat'"),
        ("concatenate", "names no class of tiny; there are cat, dog"),
        (" ", "names no class"),
        ("a cat next to a hot dog", r"names 2 classes \(cat, hot dog\); tiny draws one class a picture"),
    ],
)
def test_unknown_classes(prompt, message):
    with pytest.raises(ValueError, match=message):
        tiny_ddpm().encode([prompt])


def test_embedding_of_ones_own():
    model = tiny_ddpm()
    half = torch.tensor([0.5, 0, 0, 0, 0.5, 0])
    cond = model.encode([Prompt("cat", half), "dog"])
    assert torch.equal(cond.flatten(), torch.stack([half, torch.eye(6)[1]]))
    with pytest.raises(ValueError, match=r"an embedding for tiny is \[6\], weights of 5 classes and the null class"):
        model.encode([Prompt("cat", torch.zeros(5))])


def test_vocabulary():
    model = tiny_ddpm()
    assert model.list_words(3) == ["cat", "dog", "hot dog"]
    assert model.list_words(99) == list(CLASSES)
    assert DDPM(model.pipeline, CLASSES, "half", words=("dog",)).list_words(9) == ["dog"]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("cat", "dog"), "has 2 class names and num_class_embeds 6; one embedding more"),
        ((), "at least one name"),
        (("cat", "dog", "fox", "car", ""), "none empty"),
        (("cat", "dog", "fox", "car", "Cat"), "share a name"),
    ],
)
def test_names_that_do_not_fit(classes, message):
    with pytest.raises(ValueError, match=message):
        DDPM(tiny_ddpm().pipeline, classes, "tiny")


def test_networks_that_do_not_fit():
    shape = {"sample_size": 8, "block_out_channels": (8,), "norm_num_groups": 4, "layers_per_block": 1}
    shape |= {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    plain = UNet2DModel(**shape)
    with pytest.raises(ValueError, match="num_class_embeds None; one embedding more"):
        DDPM(DDPMPipeline(plain, DDPMScheduler()), CLASSES, "plain")
    gray = UNet2DModel(**shape, in_channels=1, out_channels=1, num_class_embeds=6)
    with pytest.raises(ValueError, match="maps 1 channels to 1 at size 8; 3 to 3"):
        DDPM(DDPMPipeline(gray, DDPMScheduler()), CLASSES, "gray")


@pytest.mark.parametrize(("text", "message"), [(None, "has no classes.json; a JSON list"), ('"cat"', "holds a str")])
def test_a_folder_without_names(tmp_path, text, message):
    if text:
        (tmp_path / "classes.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        open_folder(tmp_path, "cpu", None, "nameless")


def test_conditions_stack_with_others_of_the_model():
    model = tiny_ddpm()
    stacked = Cond.cat([model.encode(["cat", ""]), model.encode(["dog"])])
    assert stacked.flatten().argmax(dim=1).tolist() == [0, 5, 1]
