"""The alarms for prompts that an edit was fitted with, and for groups of kept things that were not drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.evaluation.alarms import LEFT_OUT, UNTESTED, warn_of_fitted
from efface.evaluation.evaluate import _warn_of_fitted, evaluate, read_used_templates
from efface.models.adapters.sd import StableDiffusion
from efface.suites.listed import read_list
from efface.suites.rows import build
from efface.suites.spec import Row, Suite, read_spec
from efface.suites.world import World
from judging_fixtures import Planted

OTHERS = ["a picture of a cat", "two cats", "a cat in the rain"]


@pytest.mark.parametrize(
    ("prompts", "templates", "seen"),
    [
        (["a cat", "A  Cat", *OTHERS], ["{}", "a {}"], "2 of 5"),
        (["cat", *OTHERS], ["{}"], "1 of 4"),
        (["cat", *OTHERS * 7], ["{}"], None),  # 1 of 22: below a twentieth
        (OTHERS, ["{}", "a {}"], None),
        (["cat", "Cat"], ["{}"], None),  # a model of classes has no other prompts
        (["a cat", *OTHERS], [], None),  # nothing is known of the fit
    ],
)
def test_prompts_of_the_fit_are_counted(prompts: Sequence[str], templates: Sequence[str], seen: str | None) -> None:
    found = warn_of_fitted(prompts, ["cat"], templates)
    assert [alarm.name for alarm in found] == (["prompts of the suite were used in fitting"] if seen else [])
    assert not seen or seen in found[0].raised_when


def test_prompts_of_kept_things_are_not_among_those_that_are_counted() -> None:
    """One of two prompts for the target is a template's; what is kept is asked for with prompts of other words."""
    spec = read_spec("glyphs-objects")
    asked = (("erase", "a cat"), ("erase", "two cats"), ("keep", "a dog"), ("keep", "a cat"))
    rows = [Row(str(i), prompt, i, "g", role, "object", "cat", ("cat",)) for i, (role, prompt) in enumerate(asked)]
    edit = Edit({}, {"request": {"targets": ["cat"], "anchor": "", "keep": []}, "arguments": {"templates": ["a {}"]}})
    (alarm,) = _warn_of_fitted(edit, Suite(spec, ("cat",), tuple(rows)))
    assert alarm.raised_when.startswith("1 of 2 prompts")


def test_a_report_says_which_prompts_its_edit_was_fitted_with(
    model: StableDiffusion, small: World, edit: Path, tmp_path: Path
) -> None:
    suite = build("glyphs-objects", Erasure(("cat",)), small, per_group=4)
    prompts = [row.prompt for row in suite.rows if row.role == "erase"]
    plain = Edit.load(edit)
    told = {**plain.meta["arguments"], "templates": [prompts[0].replace("cat", "{}")]}
    dataclasses.replace(plain, meta={**plain.meta, "arguments": told}).save(tmp_path / "told.safetensors")
    found = {
        name: {
            alarm.name: alarm.raised_when for alarm in evaluate(model, file, suite, [Planted()], tmp_path / name).alarms
        }
        for name, file in (("told", tmp_path / "told.safetensors"), ("plain", edit))
    }
    seen = prompts.count(prompts[0])
    assert found["told"]["prompts of the suite were used in fitting"].startswith(f"{seen} of {len(prompts)} prompts")
    assert "prompts of the suite were used in fitting" not in found["plain"]


def test_a_report_says_which_kept_groups_were_left_out_of_the_suite(
    model: StableDiffusion, small: World, edit: Path, tmp_path: Path
) -> None:
    suite = build("glyphs-objects", Erasure(("cat",)), small, per_group=4, only=("neighbour",))
    titles = {group.name: group.title for group in read_spec("glyphs-objects").groups}
    record = evaluate(model, edit, suite, [Planted()], tmp_path)
    assert record.suite.groups == {"neighbour": titles["neighbour"]}
    found = {alarm.name: alarm.raised_when for alarm in record.alarms}
    assert found[LEFT_OUT] == f"the suite has them, and they were not drawn: {titles['unseen']}"


def test_a_report_says_which_targets_no_prompt_asks_for_by_their_name(
    model: StableDiffusion, small: World, edit: Path, tmp_path: Path
) -> None:
    """A list of prompts may lack a target; a synonym is another name."""
    file = tmp_path / "own.csv"
    file.write_text("prompt,seed,label_str\na cat,1,cat\ntwo cats,2,cat\na dog,3,dog\na rose,4,rose\n")
    both, title = read_list(file, Erasure(("cat", "dog"))), read_spec("glyphs-objects").groups[0].title
    few = read_list(file, Erasure(("cat", "dog", "owl")))
    told = build("glyphs-objects", Erasure(("cat",)), small, per_group=2, only=("synonym",))
    for name, suite, says in (
        ("few", few, ["no prompt (the target) asks for owl"]),
        ("both", both, []),
        ("told", told, [f"no prompt ({title}) asks for cat"]),
    ):
        record = evaluate(model, edit, suite, [Planted()], tmp_path / name)
        assert [alarm.raised_when for alarm in record.alarms if alarm.name == UNTESTED] == says


def test_the_prompts_of_a_fit_are_its_templates_and_contexts_and_those_of_every_part_of_a_merge() -> None:
    parts = [
        {"method": "UCE", "arguments": {"templates": ["{}", "a {}"]}, "strength": 1},
        {"method": "merge", "arguments": {"edits": [{"method": "MACE", "arguments": {"contexts": ["the {}"]}}]}},
    ]
    assert read_used_templates({"edits": parts, "steps": 3}) == ["{}", "a {}", "the {}"]
    assert read_used_templates({"templates": None, "contexts": ("my {}", 3)}) == ["my {}"]
    assert read_used_templates({"steps": 3}) == read_used_templates("templates") == []
