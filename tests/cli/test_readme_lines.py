"""The commands that README and the page of all steps print: flags exist, and each reads what an earlier one made."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
import tyro

from efface.cli.app import COMMANDS, STYLE
from efface.cli.erase import parse

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/how-to/step-by-step.md")


def read_lines() -> list[list[str]]:
    """The lines of both pages' blocks of shell that call efface, as words."""
    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    found = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [words for words in found if words[:1] == ["efface"]]


LINES = read_lines()


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_a_line_is_understood(words: list[str]) -> None:
    name, args = words[1], words[2:]
    if name == "erase":
        assert parse(args[0], args[1:], STYLE) is not None
    else:
        tyro.cli(COMMANDS[name], args=args, config=STYLE)


def test_a_line_reads_only_what_an_earlier_one_made() -> None:
    """Case 30: `purify` once named a picture that nothing makes."""
    made: set[str] = set()
    for words in LINES:
        flags = dict(pairwise(words))
        read = [flags[name] for name in ("--edit", "--image") if name in flags]
        read += [words[2]] if words[1] in ("report", "verify", "record") else []
        assert [path for path in read if path not in made] == [], " ".join(words)
        if out := flags.get("--out"):
            made.add(out)
            if words[1] == "draw":
                made |= {f"{out}/{i:04d}-seed{flags['--seed']}.png" for i in range(words.count("--prompt"))}


def test_the_record_is_checked_without_further_flags() -> None:
    """Case 30."""
    made, checked = [words for words in LINES if words[1] == "record"]
    assert checked == [*made, "--check"] and made[2:] == ["out/cat-judged"]
