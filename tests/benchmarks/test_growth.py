"""Where growth is measured, and with which flags."""

from __future__ import annotations

from benchmarks.growth import SUBSETS, Growth, build_flags


def test_every_point_has_its_flags():
    growth = Growth()
    assert [build_flags("batch", n) for n in growth.points("batch")][-1] == {"batch": 64}
    assert [build_flags("parameters", n)["weights"] for n in growth.points("parameters")] == list(SUBSETS)
    assert all(not build_flags(axis, n) for axis in ("concepts", "resolution") for n in growth.points(axis))
    assert list(Growth(most=5).points("concepts")) == [1, 2, 5]
