"""Rules and their notation: "esr1<0.95" says what must not be. policies.toml has sets of rules."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import read_toml, refusing

POLICIES = Path(__file__).parent / "policies.toml"
RULE = re.compile(
    r"\s*(?P<name>[A-Za-z][\w-]*)\s*(\[(?P<threshold>[0-9.]+)\])?\s*(@\s*(?P<group>[^<>=]+?))?\s*"
    r"(?P<op>[<>])\s*(?P<bar>[-+]?[0-9.]+)\s*(?P<percent>%?)\s*"
)
GRAMMAR = "write METRIC<BAR or METRIC>BAR, for example esr1<0.95, psr1_drop@neighbour>5% or ner[0.6]>0.1"


@dataclass(frozen=True)
class Rule:
    """A condition that must not be true."""

    text: str
    name: str
    """A metric of the report, or one followed by _drop (base minus edited, paired) or _base (the untouched base)."""
    threshold: float | None
    """A detector's threshold, where the rule names one."""
    group: str
    """The group of rows; "" for the headline groups of the metric, "all" for every group."""
    below: bool
    """Whether a number below the bar fails; otherwise one above it does."""
    bar: float


@dataclass(frozen=True)
class Policy:
    """A set of rules with reasons."""

    name: str
    about: str
    rules: tuple[Rule, ...]
    why: tuple[str, ...]


def parse_rule(text: str) -> Rule:
    """Reads a rule as it is written on the command line.

    Raises:
        ValueError: the text is no rule.
    """
    found = RULE.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no rule; {GRAMMAR}")
    try:
        bar = float(found["bar"]) / (100 if found["percent"] else 1)
        threshold = float(found["threshold"]) if found["threshold"] else None
    except ValueError as error:
        raise ValueError(f"{text!r} holds a number that can't be read ({error}); {GRAMMAR}") from error
    if found["percent"] and found["op"] == "<" and 0 < bar < 0.01:
        share = f"{found['name']}<{bar * 100:g}"
        raise ValueError(f"{text!r} is kept by anything that reaches {bar:.2%}; write {share} for that share of 1")
    return Rule(text.strip(), found["name"], threshold, found["group"] or "", found["op"] == "<", bar)


def list_policies() -> dict[str, Policy]:
    """The policies that come with efface, by name."""
    return read_policies(POLICIES)


def read_policies(path: Path) -> dict[str, Policy]:
    """Reads policies from a TOML file: a table each, with `about` and a list of `rules` (`fail_on`, `why`).

    A list with the earlier name `bars` is read as well.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or it does not have that form.
    """
    data = read_toml(path)
    with refusing(path, "no file of policies, a table each with `about` and `rules`"):
        return {name: _read_policy(name, table) for name, table in data.items()}


def _read_policy(name: str, table: Mapping[str, Any]) -> Policy:
    """Reads a policy's table; a key with a spelling mistake would be a rule that nothing checks, and is refused."""
    _refuse_unknown(f"[{name}]", table, ("about", "rules", "bars"))
    if len({"rules", "bars"} & table.keys()) != 1:
        raise ValueError(f"[{name}] has one list: rules")
    rules: Sequence[Mapping[str, Any]] = table["rules"] if "rules" in table else table["bars"]
    if not rules:
        raise ValueError(f"[{name}] has no rule")
    for rule in rules:
        _refuse_unknown(f"a rule of [{name}]", rule, ("fail_on", "why"))
    why = tuple(str(rule.get("why", "")) for rule in rules)
    return Policy(name, str(table["about"]), tuple(parse_rule(rule["fail_on"]) for rule in rules), why)


def _refuse_unknown(where: str, table: Mapping[str, Any], known: Sequence[str]) -> None:
    if strange := sorted(table.keys() - set(known)):
        raise ValueError(f"{where} has an unknown key {strange[0]!r}; its keys are {', '.join(known)}")


def find_policy(name: str) -> Policy:
    """A policy by its name, or the only one in a TOML file.

    Raises:
        FileNotFoundError, ValueError: there is no policy of that name.
    """
    if name.endswith(".toml"):
        found = read_policies(Path(name))
        if len(found) != 1:
            raise ValueError(f"{name} holds {len(found)} policies; a file given to --policy holds one")
        return next(iter(found.values()))
    if name not in list_policies():
        raise ValueError(f"there is no policy {name!r}; there are {', '.join(list_policies())}, or give a FILE.toml")
    return list_policies()[name]
