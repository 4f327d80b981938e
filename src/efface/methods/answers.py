"""The answers that Compose chooses from: those that it has arguments for, and others of the catalogue, built by name.

To add an answer, write a file in the folder of its axis, or an entry point such as `efface.training.objectives`. Its
class is built with those arguments of its constructor that have one of these names: `source` (the states), `search`
(the vocabulary search), `model`, `erasure`, `selection` (the weights that may change), an argument of Compose, or a
name given by `--option NAME=VALUE`. All other arguments need defaults.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..catalog import BALANCES, OBJECTIVES, PRESERVATIONS, UPDATES, Registry

AXES: Mapping[str, Sequence[str]] = {
    "objective": (
        "negative-guidance",
        "anchor",
        "guidance",
        "wrong-noise",
        "denoise-up",
        "adaptive-anchor",
        "attacked",
        "gem",
    ),
    "preserve": ("nothing", "unconditional", "prompts", "adversarial", "remain"),
    "balance_": ("sum", "constrained"),
    "update_": ("dense", "low-rank", "mask", "salient"),
    "states": ("trajectories", "pictures"),
}
"""The answers for which Compose has arguments; the catalogue may have more."""
CATALOGUE = {"objective": OBJECTIVES, "preserve": PRESERVATIONS, "balance_": BALANCES, "update_": UPDATES}

_PATHS = ("source", "sampler", "refresh")
_KEPT = ("keep_paths", "keep_source")
_SEARCH = ("vocabulary", "k_closest", "centres", "exclude", "margin")
_CHOICE = ("temperature", "hard", "top", "search_gradient", "search_lr", "search_turns")
_ATTACK = ("attack_steps", "attack_lr", "attack_tokens", "attack_start", "warm_up")
USES: Mapping[tuple[str, str], Sequence[str]] = {
    ("objective", "negative-guidance"): ("states", "eta"),
    ("objective", "anchor"): ("states", "shows"),
    ("objective", "guidance"): ("states", "goal", "eta", "detach"),
    ("objective", "wrong-noise"): ("wrong", "label"),
    ("objective", "adaptive-anchor"): ("states", "eta"),
    ("objective", "gem"): ("states", "eta", "first"),
    ("objective", "attacked"): ("states", "eta", *_ATTACK),
    ("states", "trajectories"): (*_PATHS, "paths"),
    ("states", "pictures"): ("forget_images", "pictures", "antithetic"),
    ("preserve", "prompts"): (*_PATHS, *_KEPT),
    ("preserve", "adversarial"): (*_PATHS, *_SEARCH, *_CHOICE, *_KEPT),
    ("preserve", "remain"): ("remain_images", "remain_words", "pictures", "antithetic"),
    ("balance_", "sum"): ("keep_weight",),
    ("balance_", "constrained"): ("rate", "rate_eta", "inner"),
    ("update_", "low-rank"): ("rank",),
    ("update_", "mask"): ("relaxation", "tau", "start", "beta", "sparsity", "fill"),
    ("update_", "salient"): ("share", "looks"),
}
"""The settings that each answer reads, beside those that every training reads."""


def parse_options(given: Sequence[str]) -> dict[str, Any]:
    """Parses settings such as "pull=2.0" by name; raises ValueError for what is no setting."""
    found: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not (equals and name.strip()):
            raise ValueError(f"option {each!r} is not a setting; write NAME=VALUE, for example pull=2.0")
        try:
            found[name.strip().replace("-", "_")] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name.strip().replace("-", "_")] = value
    return found


def list_offered(registry: Registry, used: Collection[type], known: Collection[str]) -> list[str]:
    """The names of answers that can be built from the known arguments, and whose classes are not used already."""
    found = []
    for name in registry.list_names():
        with suppress(ValueError):  # of another package, and can't be imported
            if (kind := registry.get(name)) not in used and not list_missing(kind, known):
                found.append(name)
    return found


def list_parameters(kind: type[Any]) -> list[str]:
    """The names of the arguments of an answer's constructor."""
    return list(inspect.signature(kind).parameters)


def list_missing(kind: type[Any], known: Collection[str]) -> list[str]:
    """The names of arguments that an answer's constructor needs and that are not known."""
    needs = inspect.signature(kind).parameters.values()
    return [each.name for each in needs if each.default is each.empty and each.name not in known]


def build_answer(registry: Registry, name: str, parts: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """The answer of that name, built of the parts that its constructor names, and of options by name.

    Raises:
        ValueError: there is no such answer, or its constructor needs what is not there.
    """
    kind = registry.get(name)
    if lacking := list_missing(kind, {*parts, *options}):
        raise ValueError(f"{registry.kind} {name} needs {', '.join(lacking)}: give --option {lacking[0]}=VALUE")
    own = list_parameters(kind)
    made = {each: parts[each] for each in own if each in parts and each not in options}
    return kind(**made, **{each: value for each, value in options.items() if each in own})
