"""What `efface takedown --method auto` ranks by: one file, its page, the rule, and the command that measures it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from efface.api.choosing import CHOICE, SHORT, ChoiceTable, Rates, choose_methods, read_choice_table
from efface.catalog import METHODS
from efface.concept import Erasure
from efface.methods import find_capabilities
from efface.models.loading import load
from efface.sweeps.grid import read_grid
from judging_fixtures import world_model, write_bundle
from recipes import choice
from tiny_language import tiny_flux2

CAT = Erasure(("cat",))
FLOORS = {"neggrad", "finetune"}
"""Methods that others are compared with, and that nobody would take."""
GRID = """
model = "{model}"
methods = ["uce", "rece"]
concepts = ["cat", "dog"]
[sizes]
target = 2
neighbour = 2
unseen = 2
[drawing]
steps = 1
[settings.uce]
preserve_vocabulary = 4
[settings.rece]
preserve_vocabulary = 4
"""


def build_table(**rates: tuple[float, float, float]) -> ChoiceTable:
    methods = {name: Rates(esr1=a, neighbour=b, unseen=c) for name, (a, b, c) in rates.items()}
    made = {"model": "glyphs", "fingerprint": "abc", "concepts": ("cat",), "pictures": 8, "seed": 0, "command": "x"}
    return ChoiceTable(**made, versions={"efface": "1"}, methods=methods)


def test_the_file_and_its_page_are_what_the_command_writes() -> None:
    table = read_choice_table()
    assert choice.render_file(table) == CHOICE.read_text(encoding="utf-8")
    assert choice.render_page(table) == choice.PAGE.read_text(encoding="utf-8")


def test_the_grid_has_every_method_that_needs_only_a_name() -> None:
    known = {name: find_capabilities(name) for name in METHODS.list_names()}
    need = {"needed", "by choice"}
    named = {n for n, c in known.items() if c.kind != "inference time" and not need & {c.anchor, c.images, c.keep}}
    assert named - FLOORS == set(read_grid(choice.GRID).methods) >= set(read_choice_table().methods)


def test_the_best_is_the_most_erased_for_the_least_lost() -> None:
    table = build_table(esd=(100, 40, 0), uce=(90, 5, 5), eap=(95, 5, 20), mace=(90, 5, 5))
    assert table.rank() == ["mace", "uce", "eap", "esd"]
    model = world_model()
    assert choose_methods(model, CAT, "auto", 2, table) == ("mace", "uce")
    assert choose_methods(model, Erasure(("cat",), keep=("dog",)), "auto", 4, table) == ("mace", "uce", "eap")
    assert choose_methods(model, CAT, "esd", 3) == ("esd",)
    with pytest.raises(ValueError, match="did you mean"):
        choose_methods(model, CAT, "edd", 3)


def test_what_leaves_the_weights_as_they_are_is_not_tried() -> None:
    model, table = world_model(), build_table(spm=(100, 0, 0), uce=(90, 5, 5))
    assert choose_methods(model, CAT, "auto", 2, table) == ("uce",)
    assert choose_methods(model, CAT, "auto", 2, table, {"spm": {"gate": False}}) == ("spm", "uce")
    assert choose_methods(model, CAT, "spm", 2, table) == ("spm",)
    with pytest.raises(ValueError, match="no transport"):
        choose_methods(model, CAT, "auto", 2, table, {"spm": {"gate": False, "transport": "ferry"}})


def test_what_a_distilled_model_lacks_is_not_tried() -> None:
    model = tiny_flux2(klein=True, distilled=True)
    assert choose_methods(model, CAT, "auto", 9, build_table(esd=(100, 0, 0), age=(50, 0, 0))) == ("age",)
    with pytest.raises(ValueError, match=r"need only a name serves .*guidance was distilled away"):
        choose_methods(model, CAT, "auto", 9, build_table(esd=(100, 0, 0)))


def test_the_command_measures_and_writes_what_the_plan_then_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = str(write_bundle(tmp_path / "bundle") / "model")
    (tmp_path / "grid.toml").write_text(GRID.format(model=model))
    file, page = tmp_path / "choice.toml", tmp_path / "choice.md"
    args = ["--grid", str(tmp_path / "grid.toml"), "--out", str(tmp_path / "out"), "--file", str(file)]
    choice.main([*args, "--page", str(page)])
    first = file.read_bytes()
    table = read_choice_table(file)
    assert set(table.methods) == {"uce", "rece"} and table.concepts == ("cat", "dog") and table.pictures == 2
    assert all(0 <= rates.esr1 <= 100 and rates.neighbour >= 0 <= rates.unseen for rates in table.methods.values())
    opened = load(model, "cpu")
    assert table.fingerprint == opened.fingerprint()["fp32"][:SHORT] and "today" not in table.describe(opened)
    assert "not on tiny" in table.describe(world_model())
    assert "not on today's weights" in dataclasses.replace(table, fingerprint="0").describe(opened)
    told = " ".join(page.read_text().split())
    assert "rece" in told and f"weights `{table.fingerprint}`" in told
    capsys.readouterr()
    choice.main([*args, "--page", str(page)])
    assert file.read_bytes() == first and "of 4  " not in capsys.readouterr().out  # nothing was measured again
    other = Rates(esr1=50.0, neighbour=1.0, unseen=2.0)
    file.write_text(choice.render_file(dataclasses.replace(table, methods={"esd": other, "uce": other})))
    choice.main([*args, "--page", str(page), "--method", "uce"])
    assert read_choice_table(file).methods == {"esd": other, "uce": table.methods["uce"]}
    file.write_text(choice.render_file(dataclasses.replace(table, fingerprint="0" * SHORT)))
    with pytest.raises(ValueError, match="the file's rates are of fingerprint '000000000000', and these of "):
        choice.main([*args, "--page", str(page), "--method", "uce"])


def test_a_mean_counts_gains_as_no_loss_and_misses_nothing() -> None:
    def line(concept: str, metric: str, group: str, base: str, value: str, judge: str = "all") -> dict[str, str]:
        told = {"method": "uce", "concept": concept, "judge": judge, "base": base, "value": value}
        return {**told, "metric": metric, "group": group}

    lines = [
        line("cat", "esr1", "target", "0.1", "0.9"),
        line("cat", "esr1", "target", "0.1", "0.2", "resnet"),
        line("dog", "esr1", "target", "0.1", "0.8"),
        line("cat", "psr1", "neighbour", "0.9", "0.7"),
        line("dog", "psr1", "neighbour", "0.9", "0.8"),
        line("cat", "psr1", "unseen", "0.5", "0.6"),
    ]
    assert choice.average(lines) == {"uce": Rates(esr1=85.0, neighbour=15.0, unseen=0.0)}
    with pytest.raises(ValueError, match="uce on dog has no psr1/unseen"):
        choice.average([*lines, line("dog", "psr1", "unseen", "0.5", "")])


def test_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "choice.toml").write_text("[made]\nmodel = 'x'\n")
    with pytest.raises(ValueError, match=r"choice.toml is damaged .*python -m recipes.choice"):
        read_choice_table(tmp_path / "choice.toml")
