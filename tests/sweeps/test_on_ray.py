"""Sweeps on a Ray cluster of two nodes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import efface


@pytest.fixture
def cluster() -> Iterator[str]:
    """The address of a Ray cluster of two nodes on this machine."""
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    found.add_node(num_cpus=1)
    yield str(found.address)
    import ray

    ray.shutdown()
    found.shutdown()


@pytest.mark.filterwarnings("ignore")
def test_an_interrupted_sweep_leaves_no_task_on_the_cluster(
    whole: tuple[Path, bytes], tmp_path: Path, cluster: str
) -> None:
    """The process goes on, as that of a notebook does, so that Ray would not end the tasks by itself."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        efface.sweep(whole[0], tmp_path / "out", ray=cluster, on_answer=stop)
    import ray

    while ray.available_resources().get("CPU", 0) < 2:  # until no task runs
        time.sleep(0.1)
    assert len(list((tmp_path / "out/cells").glob("*.json"))) < 6, "the job that waited was not begun"


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_gives_the_table_of_this_machine_by_names_that_its_workers_give(
    whole: tuple[Path, bytes], tmp_path: Path, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, table = whole
    monkeypatch.setattr("efface.sweeps.sweeping.plan", None)  # a driver without a GPU would name other cells
    summary = efface.sweep(grid, tmp_path / "out", ray=cluster)
    assert (summary.new, summary.failed) == (6, ()) and summary.table.read_bytes() == table
