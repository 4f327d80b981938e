"""`efface verify`: its exit codes are its answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from efface.cli.app import main
from efface.compliance import rules
from report_fixtures import write_attacks, write_evaluation


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """ESR-1 0.98 (0.964 to 0.989); PSR-1 falls by 0.14 (0.10 to 0.18) for neighbours, 0.01 for the rest."""
    return str(write_evaluation(tmp_path_factory.mktemp("verify") / "e"))


def test_bars_that_hold_exit_0(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", folder, "--fail-on", "esr1<0.95", "--fail-on", "psr1_drop@unseen>0.05"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 3 and out[-1] == "holds"


def test_a_bar_that_fails_exits_1_and_says_which_and_by_how_much(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", folder, "--fail-on", "esr1<0.95", "--fail-on", "psr1_drop>0.05"]) == 1
    out = capsys.readouterr().out
    assert "psr1_drop@neighbour is 0.140 (0.100 to 0.180), n = 500" in out
    assert "failed: the upper bound misses the bar by 0.13" in out and out.endswith("FAILED\n")


def test_what_cannot_be_judged_exits_3(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", folder, "--fail-on", "esr1<0.97", "--widest", "0.01"]) == 3
    assert "undecided: the interval is" in capsys.readouterr().out
    assert main(["verify", folder, "--fail-on", "esr1<0.97"]) == 1


def test_a_policy_is_its_rules(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", folder, "--policy", "default", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {f["rule"] for f in found["findings"]} == {r.text for r in rules.find_policy("default").rules}
    assert found["outcome"] == "failed"
    # Nobody attacked: the bar on attacks is open.
    own = tmp_path / "own.toml"
    own.write_text('[own]\nabout = "Only attacks."\n[[own.bars]]\nfail_on = "robust<0.1"\n')
    assert main(["verify", folder, "--policy", str(own)]) == 3
    fought = write_evaluation(tmp_path / "fought")
    write_attacks(fought)
    assert main(["verify", str(fought), "--policy", str(own)]) == 0


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "no rule was given"),
        (["--fail-on", "esr1=0.9"], "is no rule"),
        (["--fail-on", "esr9<0.9"], "esr9 was not measured"),
        (["--policy", "none"], "there is no policy 'none'"),
        (["--fail-on", "esr1<0.9", "--widest", "0"], "above 0"),
    ],
)
def test_bad_input_exits_2(folder: str, args: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", folder, *args]) == 2
    assert says in capsys.readouterr().err


def test_a_folder_without_an_evaluation_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path), "--policy", "default"]) == 2
    assert "no report.json" in capsys.readouterr().err


def test_help_documents_the_exit_codes_and_the_policies(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["verify", "--help"])
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for words in (
        "exit code is 0 where",
        "1 where a rule failed",
        "3 where no rule failed",
        "more than 2 %",
        "--widest",
    ):
        assert words in out
    for rule in rules.find_policy("attacked").rules:
        assert f'--fail-on "{rule.text}"' in out
