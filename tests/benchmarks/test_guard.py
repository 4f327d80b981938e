"""Evaluation counts and allocations against those in benchmarks/guard.json."""

from __future__ import annotations

from benchmarks import guard
from tiny import tiny_model


def test_nothing_asks_or_holds_more_than_it_did():
    found = guard.measure_cases(tiny_model)
    differs = guard.list_worse(found, guard.read_kept())
    assert not differs, f"{'; '.join(differs)}; where that is wanted: python -m benchmarks.guard --renew"


def test_the_guard_sees_a_change_of_either_sign():
    kept = {"esd": {"rows": 100, "calls": 10, "bytes": 1000}}
    assert guard.list_worse(kept, kept) == []
    assert guard.list_worse({"esd": {"rows": 100, "calls": 10, "bytes": 1040}}, kept) == []
    assert guard.list_worse({"esd": {"rows": 101, "calls": 10, "bytes": 1000}}, kept) == ["esd: 101 rows, were 100"]
    assert guard.list_worse({"esd": {"rows": 100, "calls": 10, "bytes": 900}}, kept) == ["esd: 900 bytes, were 1000"]
    assert len(guard.list_worse({}, kept)) == 3
