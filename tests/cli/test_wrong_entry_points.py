"""What an installed package brings is refused where it is written wrongly, by a message that says what is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import efface
from efface import catalog
from efface.cli.app import main
from efface.scorers.build import build_scorers
from efface.suites.spec import read_spec
from installed_package import ATTACK, METHOD, SCORER
from installed_package import installed as installed
from installed_package import model as model

pytestmark = pytest.mark.usefixtures("few_steps")


def install_method(place: Path, monkeypatch: pytest.MonkeyPatch, text: str, value: str = "outsiders.fade:Fade") -> None:
    """Replaces the package's method by one with this source, under the entry point's value."""
    (place / "outsiders" / "fade.py").write_text(text, encoding="utf-8")
    (place / "outsiders-1.0.dist-info" / "entry_points.txt").write_text(f"[efface.methods]\nfade = {value}\n")
    monkeypatch.syspath_prepend(str(place / "outsiders"))  # another path is looked through anew


WRONG = {
    "a slip": (METHOD.replace("several:", "several("), r"fade.py, line \d+, is not Python: "),
    "a default of another type": (
        METHOD.replace("share: float = 0.5", 'share: float = "half"'),
        "class Fade in .*fade.py: the setting share is of type float, and its default is 'half'",
    ),
    "a fraction for a whole number": (
        METHOD.replace("share: float = 0.5", "share: int = 0.5"),
        "the setting share is of type int, and its default is 0.5",
    ),
    "no default": (METHOD.replace("share: float = 0.5", "share: float"), "the setting share needs a default"),
    "no dataclass": (METHOD.replace("@dataclass(frozen=True, kw_only=True)\n", ""), "class Fade in .* is no dataclass"),
    "a method that is missing": (METHOD.replace("def train", "def trains"), "class Fade in .* does not define train"),
    "another class": (METHOD.replace("class Fade", "class Faed"), "defines no class 'Fade', .* did you mean 'Faed'"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_a_method_that_is_written_wrongly_is_refused_with_its_file(
    text: str, message: str, installed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install_method(installed, monkeypatch, text)
    assert (
        main(["erase", "fade", "--model", "glyphs", "--target", "cat", "--out", str(installed / "cat.safetensors")])
        == 2
    )
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("value", "message"),
    {
        "outsiders.gone:Fade": "outsiders brings the method 'fade' and has no module 'outsiders.gone'.* mend the entry",
        "outsiders.fade": r'by a module without a class; write "outsiders.fade:CLASS"',
    }.items(),
)
def test_an_entry_point_that_leads_nowhere_is_refused_with_its_mend(
    value: str, message: str, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_method(installed, monkeypatch, METHOD, value)
    with pytest.raises(ValueError, match=message):
        catalog.METHODS.get("fade")
    assert "fade" not in catalog.METHODS.list_names()


def test_a_scorers_settings_have_their_types_and_its_name_both_spellings(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SCORER.replace(
        '    question: str = "object"', '    every: int = 2\n    strict: bool = True\n    question: str = "object"'
    )
    (installed / "outsiders" / "parity.py").write_text(text, encoding="utf-8")
    (installed / "outsiders-1.0.dist-info" / "entry_points.txt").write_text(
        "[efface.scorers]\nodd_even = outsiders.parity:Parity\n"
    )
    monkeypatch.syspath_prepend(str(installed / "outsiders"))
    for name in ("odd_even", "odd-even"):
        (made,) = build_scorers(None, {}, [f"{name},every=3,strict=false"])
        assert (made.every, made.strict) == (3, False)  # type: ignore[union-attr]
    for said in ("every=1.5", "strict=no"):
        with pytest.raises(ValueError, match=r"scorer odd-even: (every is a whole number|strict is true or false)"):
            build_scorers(None, {}, [f"odd_even,{said}"])


ANSWERS = {
    "[Score(None, row.concept) for row in rows]": "is a tuple of labels, such as .*, not 'tiger'",
    "[Score(1.0) for row in rows]": "answers the question 'object', so that its labels count",
    "[Score(torch.tensor(1.0), ('cat',)) for row in rows]": "is a float or None, not a Tensor",
    "[Score(0.5, ('cat',)) for row in rows]": "a value is 1, 0 or None, not 0.5",
    "[1.0 for row in rows]": "a Score for each picture; there is a float in it",
    "[Score(float('nan'), ('cat',)) for row in rows]": "its numbers are NaN or infinite",
}


@pytest.mark.parametrize(("given", "message"), ANSWERS.items(), ids=ANSWERS)
def test_a_scorer_whose_answers_would_be_misread_is_refused_before_anything_is_drawn(
    given: str, message: str, installed: Path, model: str, tmp_path: Path
) -> None:
    head, _, _ = SCORER.partition("        seen =")
    text = f"{head}        return {given}\n".replace("from dataclasses", "import torch\nfrom dataclasses", 1)
    (installed / "outsiders" / "parity.py").write_text(text, encoding="utf-8")
    opened = efface.load(model, "cpu")
    edit = efface.erase(opened, "cat", "fade", progress=False)
    with pytest.raises(RuntimeError, match=f"nothing was drawn, because scorer parity .*{message}"):
        efface.evaluate(opened, edit, tmp_path / "out", "four-animals", scorers=["parity"], progress=False)


@pytest.mark.parametrize(
    ("line", "message"),
    {
        '        return {"scorer": "parity", "version": self.version}': "has neither a `score`",
        '"parity", "version": self.version}': "identify returns a dict such as .*, not 'parity'",
    }.items(),
)
def test_a_scorer_that_does_not_say_on_what_its_answers_depend_is_refused(
    line: str, message: str, installed: Path, model: str, tmp_path: Path
) -> None:
    text = SCORER.replace(f"    def identify(self):\n{line}\n", "").replace('{"scorer": ' + line, '"parity"')
    (installed / "outsiders" / "parity.py").write_text(text, encoding="utf-8")
    opened = efface.load(model, "cpu")
    edit = efface.erase(opened, "cat", "fade", progress=False)
    with pytest.raises(ValueError, match=message):
        efface.evaluate(opened, edit, tmp_path / "out", "four-animals", scorers=["parity"], progress=False)


YIELD = "        yield [Candidate(row.prompt.upper(), row.seed) for row in rows]"
ATTACKS = {
    "no threat": (
        ATTACK.replace('    threat: ClassVar[str] = "prompts"\n', ""),
        'Shout needs .* threat \\("prompts" or',
    ),
    "no version": (ATTACK.replace('    version: ClassVar[str] = "1"\n', ""), "Shout needs two class variables"),
    "an unknown threat": (ATTACK.replace('"prompts"', '"magic"'), "Shout needs two class variables"),
    "a list": (ATTACK.replace(YIELD, "        return []"), r"Shout.propose has to yield .* and returns \[\]"),
    "prompts": (
        ATTACK.replace(YIELD, "        yield [row.prompt for row in rows]"),
        "Shout gave '.*'; it has to yield a Candidate or None for each row",
    ),
}


@pytest.mark.parametrize(("text", "message"), ATTACKS.values(), ids=ATTACKS)
def test_an_attack_that_is_written_wrongly_is_refused_by_its_name(
    text: str, message: str, installed: Path, model: str, tmp_path: Path
) -> None:
    (installed / "outsiders" / "shout.py").write_text(text, encoding="utf-8")
    opened = efface.load(model, "cpu")
    edit = efface.erase(opened, "cat", "fade", progress=False)
    with pytest.raises((ValueError, RuntimeError), match=message):
        efface.attack(
            opened, edit, tmp_path / "out", "four-animals", attacks="shout", scorers=["parity"], progress=False
        )


def test_a_list_of_attacks_names_the_file_of_one_that_declares_too_little(
    installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (installed / "outsiders" / "shout.py").write_text(ATTACKS["no threat"][0], encoding="utf-8")
    assert main(["list", "attacks"]) == 0
    said = capsys.readouterr().out
    assert re.search("broken: shout\n.*shout.py: attack shout has to declare two class variables", said)
    assert "ring-a-bell" in said


@pytest.mark.parametrize("raised", ["ValueError('all wrong')", "TypeError('all wrong')", "RuntimeError('all wrong')"])
def test_an_error_of_another_package_names_its_line(
    raised: str, installed: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = METHOD.replace("        values =", f"        raise {raised}\n        values =")
    (installed / "outsiders" / "fade.py").write_text(text, encoding="utf-8")
    line = next(n for n, said in enumerate(text.splitlines(), 1) if "raise " in said)
    words = ["--model", model, "--target", "cat", "--out", str(tmp_path / "cat.safetensors")]
    assert main(["erase", "fade", *words]) in (1, 2)
    said = f"error: all wrong ({raised.partition('(')[0]} in outsiders/fade.py, line {line})"
    assert said in capsys.readouterr().err
    assert main(["erase", "negative", *words, "--anchor", "dog"]) == 2
    assert "(ValueError" not in capsys.readouterr().err


def test_an_error_of_another_package_s_scorer_names_its_line(installed: Path, model: str, tmp_path: Path) -> None:
    text = SCORER.replace("        seen =", "        raise RuntimeError('all wrong')\n        seen =")
    (installed / "outsiders" / "parity.py").write_text(text, encoding="utf-8")
    line = next(n for n, said in enumerate(text.splitlines(), 1) if "raise " in said)
    opened = efface.load(model, "cpu")
    edit = efface.erase(opened, "cat", "fade", progress=False)
    with pytest.raises(RuntimeError, match=rf"RuntimeError: all wrong \(outsiders/parity.py, line {line}\)"):
        efface.evaluate(opened, edit, tmp_path / "out", "four-animals", scorers=["parity"], progress=False)


BROKEN = {
    "methods": ("fade.py", METHOD.replace("several:", "several("), r"fade.py, line \d+, is not Python", "negative"),
    "attacks": ("shout.py", ATTACK.replace("queries:", "queries("), r"shout.py, line \d+, is not Python", "seeds"),
    "scorers": ("parity.py", SCORER.replace("name:", "name("), r"parity.py, line \d+, is not Python", "artefact"),
    "suites": ("four-animals.toml", "name =", "four-animals.toml is damaged ", "cifar10"),
}


@pytest.mark.parametrize(("what", "file", "text", "message", "other"), [(k, *v) for k, v in BROKEN.items()], ids=BROKEN)
def test_what_is_broken_stops_only_what_asks_for_it(
    what: str, file: str, text: str, message: str, other: str, installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (installed / "outsiders" / file).write_text(text, encoding="utf-8")
    assert main(["list", what]) == 0
    assert re.search(f"broken: {file.partition('.')[0]}\n.*{message}", capsys.readouterr().out)
    assert main(["list", what, "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert re.search(message, rows[file.partition(".")[0]]["broken"]) and rows[other]["about"]
    registry = getattr(catalog, what.upper())
    assert registry.find_entry(other).name == other
    if what != "suites":  # which are files, not classes
        with pytest.raises(ValueError, match=message):
            registry.get(file.partition(".")[0])
    if what == "scorers":
        with pytest.raises(ValueError, match=message):
            build_scorers(None, {}, ["parity"])
    if what == "suites":
        with pytest.raises(ValueError, match=message):
            read_spec("four-animals")


def test_what_can_t_be_imported_stops_only_what_asks_for_it(
    installed: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (installed / "outsiders" / "fade.py").write_text(
        METHOD.replace("from typing", "import no_such_module\nfrom typing"), encoding="utf-8"
    )
    message = r"outsiders brings the method 'fade', and .*fade.py can't be imported: ModuleNotFoundError: .*no_such_mod"
    words = ["--model", "glyphs", "--target", "cat", "--out", str(tmp_path / "cat.safetensors")]
    assert main(["erase", "fade", *words]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert main(["erase", "negative", *words]) == 0
    capsys.readouterr()
    assert main(["doctor", "--json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)["broken"]
    assert re.search(message, said)
    assert main(["doctor"]) == 0
    assert re.search(f"broken +{message}", capsys.readouterr().out)
