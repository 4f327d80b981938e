"""The example of a cluster file is one that Ray would read, and its parts fit each other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from efface.cli.app import main

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs" / "examples" / "ray-cluster.yaml"
KEYS = (
    "provider", "auth", "max_workers", "available_node_types", "head_node_type", "file_mounts", "setup_commands",
    "head_start_ray_commands", "worker_start_ray_commands",
)  # fmt: skip


@pytest.fixture
def cluster() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def test_the_parts_of_the_cluster_file_fit_each_other(cluster: dict[str, Any]) -> None:
    assert set(KEYS) <= set(cluster)
    kinds = cluster["available_node_types"]
    assert cluster["head_node_type"] in kinds and len(kinds) == 2
    workers = [kind for name, kind in kinds.items() if name != cluster["head_node_type"]]
    assert all(kind["resources"]["GPU"] >= 1 and kind["max_workers"] <= cluster["max_workers"] for kind in workers)
    assert all((ROOT / place).is_dir() for place in cluster["file_mounts"].values())
    assert any("[ray" in command for command in cluster["setup_commands"])
    (head,) = (command for command in cluster["head_start_ray_commands"] if "ray start --head" in command)
    port = re.search(r"--port=(\d+)", head)
    (worker,) = (command for command in cluster["worker_start_ray_commands"] if "ray start" in command)
    assert port and f"--address=$RAY_HEAD_IP:{port[1]}" in worker and "--autoscaling-config=" in head


def test_ray_knows_every_key_of_the_cluster_file(cluster: dict[str, Any]) -> None:
    ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")
    jsonschema = pytest.importorskip("jsonschema", reason="comes with ray")
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(cluster, schema)
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        jsonschema.validate({**cluster, "max_worker": 8}, schema)


def test_the_cluster_file_names_rays_version_and_a_grid_that_is_there(tmp_path: Path) -> None:
    text = FILE.read_text(encoding="utf-8")
    (version,) = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert f'"ray[default]=={version}"' in text
    (grid,) = re.findall(r"efface sweep ~/efface/(\S+)", text)
    assert main(["sweep", str(ROOT / grid), "--out", str(tmp_path), "--dry-run", "--ray", "auto", "--gpus", "1"]) == 0
