"""Over 2,000 damaged files, every reader's: each is read, or refused in one sentence that names the file."""

from __future__ import annotations

import random

import pytest

import fuzz
from efface.attacks import build_attack
from efface.cli.attack import group_by_attack, parse_synonyms
from efface.compliance.rules import parse_rule
from efface.planning.machine import read_size
from efface.scorers._specs import ModelResources, build_scorer
from fuzz_readers import READERS

CASES = 2050


def test_every_damaged_file_is_read_or_refused_by_name() -> None:
    found = list(fuzz.run(CASES))
    assert [(reader.name, case, says) for case, reader, outcome, says in found if outcome == "fault"] == []
    refused = {reader.name for _, reader, outcome, _ in found if outcome == "refused"}
    assert {reader.name for reader in READERS} - refused == {"chunk"}  # a damaged one is drawn anew
    read = {reader.name for _, reader, outcome, _ in found if outcome == "read"}  # of what has a digest none should be
    assert "list a.csv" in read


FLAGS = {
    "esr1[0.6]@target<95%": parse_rule,
    "8.5GB": read_size,
    "nudenet,threshold=0.6": lambda text: build_scorer(text, ModelResources()),
    "clip:folder,batch=3": lambda text: build_scorer(text, ModelResources()),
    "ring-a-bell.generations=40": lambda text: [
        build_attack(n, overrides=s) for n, s in group_by_attack([text]).items()
    ],
    "cat=kitty": lambda text: parse_synonyms([text]),
}
PIECES = ("=", ",", "[", "]", ".", ":", "nan", "inf", "1e999", "-", "%", "|", "\x00", "ü", "((((", "None", "9" * 30)


@pytest.mark.parametrize("flag", FLAGS)
def test_flags_that_mean_nothing_are_refused_in_one_line(flag: str) -> None:
    refused = 0
    for case in range(200):
        rng = random.Random(case)
        letters = list(flag)
        for _ in range(rng.choice((1, 1, 2, 4))):
            place = rng.randrange(len(letters) + 1)
            letters[place : place + rng.randrange(3)] = rng.choice((rng.choice(PIECES), ""))
        text = "".join(letters)
        try:
            FLAGS[flag](text)
        except (ValueError, OSError) as error:
            refused += 1
            assert str(error) and "\n" not in str(error), text
    assert refused > 20
