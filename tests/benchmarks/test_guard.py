"""Evaluation counts and allocations against those in benchmarks/guard.json."""

from __future__ import annotations

from benchmarks import guard
from tiny import tiny_model


def test_nothing_asks_or_holds_more_than_it_did():
    found = guard.measured(tiny_model)
    differs = guard.worse(found, guard.kept())
    assert not differs, f"{'; '.join(differs)}; where that is wanted: python -m benchmarks.guard --renew"


def test_the_guard_sees_a_change_of_either_sign():
    kept = {"esd": {"rows": 100, "calls": 10, "bytes": 1000}}
    assert guard.worse(kept, kept) == []
    assert guard.worse({"esd": {"rows": 100, "calls": 10, "bytes": 1040}}, kept) == []
    assert guard.worse({"esd": {"rows": 101, "calls": 10, "bytes": 1000}}, kept) == ["esd: 101 rows, were 100"]
    assert guard.worse({"esd": {"rows": 100, "calls": 10, "bytes": 900}}, kept) == ["esd: 900 bytes, were 1000"]
    assert len(guard.worse({}, kept)) == 3
