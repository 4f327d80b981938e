"""Version 1 of `attacks.json`: today's words for its names and values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEYS = {"where": "condition", "survivors": "worst_case", "floor": "baseline", "gain": "lift"}
"""The names of version 1, with today's names."""
CONDITIONS: Mapping[str, str] = {"edited": "target", "base": "control-base", "kept": "control-kept"}


def upgrade(data: Mapping[str, Any]) -> dict[str, Any]:
    """Gives the contents of a file of version 1 today's names and values; damaged parts stay as they are."""
    parts = {"grounds": "conditions", "trials": "measures", "successes": "successes"}
    found = {key: value for key, value in data.items() if key not in parts}
    for old, new in parts.items():
        if isinstance(entries := data.get(old), list):
            found[new] = [_upgrade_part(each) if isinstance(each, dict) else each for each in entries]
    return found


def _upgrade_part(part: Mapping[str, Any]) -> dict[str, Any]:
    renamed = {KEYS.get(key, key): value for key, value in part.items()}
    refused = {"status": "refused"} if part.get("missing") else {}
    return {**renamed, **refused, "condition": CONDITIONS.get(part.get("where", ""), part.get("where"))}
