from __future__ import annotations

import subprocess
import sys

import pytest

import efface
from efface.concept import Erasure, check_phrases


def test_short_forms():
    assert Erasure.of("cat") == Erasure(("cat",)) == Erasure.of(["cat"])
    request = Erasure(("cat",), keep=("dog",))
    assert Erasure.of(request) is request


@pytest.mark.parametrize(
    ("targets", "keep", "message"),
    [
        ((), (), "no target"),
        (("",), (), "empty concept in targets"),
        ((" ",), (), "empty concept in targets"),
        (("cat",), ("",), "empty concept in keep"),
        (("cat", "cat"), (), "twice"),
        (("cat", "Cat"), (), "twice"),
        (("cat",), ("dog", " DOG"), "keep names a concept twice"),
        (("cat",), ("cat",), "erased and kept at once: cat"),
        (("cat",), ("Cat",), "erased and kept at once: cat"),
        (("van gogh",), ("Van  Gogh ",), "erased and kept at once: van gogh"),
        (("C\u00e9zanne",), ("ce\u0301zanne",), "erased and kept at once"),
    ],
)
def test_bad_requests(targets, keep, message):
    with pytest.raises(ValueError, match=message):
        Erasure(targets, keep=keep)


@pytest.mark.parametrize("anchor", ["dog", "Dog", " dog "])
def test_an_anchor_that_is_a_target(anchor):
    with pytest.raises(ValueError, match="the anchor is what is to be erased: dog; name another"):
        Erasure(("cat", "dog"), anchor=anchor)
    assert Erasure(("hot dog",), anchor=anchor).anchor == anchor


def test_several_concepts_in_one_phrase_are_refused_unless_that_is_a_name():
    for given in ("cat, dog", "cat,dog", "cat, dog,"):
        with pytest.raises(ValueError, match="would be one phrase, not 2 concepts; repeat the flag, as in --target"):
            check_phrases((given,), "target")
    with pytest.raises(ValueError, match="as in --keep 'hot dog' --keep cat"):
        check_phrases(("dog", "hot dog, cat"), "keep", ["cat"])
    check_phrases(("Chain saw,  chainsaw", "cat"), "target", ["chain saw, chainsaw"])


def test_a_bare_string_is_no_tuple():
    with pytest.raises(TypeError, match="tuple of strings"):
        Erasure("cat")  # type: ignore[arg-type]


def test_import_and_listing_load_no_torch():
    code = (
        "import sys, efface, efface.methods as m, efface.models as d, efface.training.subsets\n"
        "print([m.describe(n) for n in m.list_names()], d.list_bundled())\n"
        "sys.exit(any(n in sys.modules for n in ('torch', 'diffusers', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_faces():
    assert efface.__version__
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = efface.nonsense
