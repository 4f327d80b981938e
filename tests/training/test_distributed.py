"""Two processes on one machine take the same steps as one."""

from __future__ import annotations

import multiprocessing
import os
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import PartialState
from PIL import Image

from efface import methods
from efface.cli.app import main
from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.training.distributed import ProcessGroup, find_process_group, join_process_group
from tiny import tiny_model

SETTINGS = {
    "esd": {"source": "student", "batch": 3, "space": "x0", "templates": ("{}", "a {}")},
    "abo": {"source": "student", "refresh": 2, "batch": 3, "templates": ("{}", "a {}")},
    "eap": {"source": "frozen", "batch": 4, "micro_batch": 1, "keep_paths": 1},
    "erasediff": {"batch": 3, "pictures": 4, "remain_words": 2, "label": "dog"},
    "p-esd": {"source": "frozen", "batch": 4, "sparsity": 0.05, "steps": 12},
}
SHORT = {"steps": 4, "draw_steps": 3, "lr": 1e-3, "paths": 3}
TOLERANCE = 0.02
"""Of what moved: a difference in rounding may turn the first steps of Adam, which go by the sign of a gradient."""


def fit_method(name: str, checkpoint: Path | None = None) -> Edit:
    fields = methods.get(name).__dataclass_fields__
    given = {key: value for key, value in {**SHORT, **SETTINGS[name]}.items() if key in fields}
    return methods.get(name)(**given).fit(tiny_model(), Erasure(("cat",)), checkpoint=checkpoint)


def run_member(rank: int, port: int, work: Callable[..., None], *args: Any) -> None:
    """One of two processes."""
    torch.set_num_threads(1)
    PartialState._reset_state()  # a process that a launcher starts knows nothing of its parent's being alone
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    work(rank, *args)


def run_both(work: Callable[..., None], *args: Any) -> None:
    """Does the work in two processes that are a team."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    with warnings.catch_warnings():
        # Python 3.12 warns of forks where there are threads: those that torch keeps waiting do nothing here.
        warnings.simplefilter("ignore", DeprecationWarning)
        processes = [context.Process(target=run_member, args=(rank, port, work, *args)) for rank in range(2)]
        for process in processes:
            process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]


def fit(rank: int, name: str, folder: Path) -> None:
    with join_process_group("cpu") as mine:
        assert (mine.rank, mine.size) == (rank, 2)
        assert mine.find_any([rank == 0, rank == 1, False], torch.device("cpu")) == [True, True, False]
        rows = []
        hook = count_tiny_rows(rows)
        edit = fit_method(name, folder / "checkpoint")
        hook.remove()
        edit.save(folder / f"{rank}.safetensors")
        (folder / f"{rank}.rows").write_text(str(sum(rows)))


def count_tiny_rows(rows: list[int]):
    """Counts the rows of every denoiser of this process."""
    from diffusers import UNet2DConditionModel

    def note(module: torch.nn.Module, args: tuple) -> None:
        if isinstance(module, UNet2DConditionModel):
            rows.append(len(args[0]))

    return torch.nn.modules.module.register_module_forward_pre_hook(note)


@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_are_one(name, tmp_path):
    rows: list[int] = []
    hook = count_tiny_rows(rows)
    alone = fit_method(name)
    hook.remove()
    run_both(fit, name, tmp_path)
    first, second = (Edit.load(tmp_path / f"{rank}.safetensors") for rank in range(2))
    assert all(torch.equal(value, second.values[key]) for key, value in first.values.items())
    assert first.values.keys() == alone.values.keys()
    assert not (tmp_path / "checkpoint").exists()
    base = tiny_model().weights
    for key, value in alone.values.items():
        if key in base:
            moved = (value - base[key]).abs().max()
            assert (first.values[key] - value).abs().max() <= TOLERANCE * moved + 1e-8, key
        else:
            assert (first.values[key] != value).float().mean() <= TOLERANCE, key
    each = [int((tmp_path / f"{rank}.rows").read_text()) for rank in range(2)]
    assert max(each) <= 0.75 * sum(rows), "the work was not shared"


def draw(rank: int, model: str, out: str) -> None:
    assert main([*DRAW, "--model", model, "--out", out]) == 0


DRAW = ("draw", "--prompt", "a cat", "--prompt", "a dog", "--count", "2", "--seed", "3", "--steps", "2")


def test_two_processes_draw_what_one_draws(tmp_path):
    tiny_model().save_pretrained(tmp_path / "model")
    draw(0, str(tmp_path / "model"), str(tmp_path / "one"))
    run_both(draw, str(tmp_path / "model"), str(tmp_path / "two"))
    files = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert sorted(file.name for file in (tmp_path / "two").iterdir()) == files
    assert len(files) == 5
    for name in files[:4]:
        one, two = (np.asarray(Image.open(tmp_path / who / name)).astype(int) for who in ("one", "two"))
        assert abs(one - two).max() <= 1  # the last bit: they are drawn four at once, or two


def test_a_device_for_one_is_refused_for_several(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(ValueError, match=r"2 processes can't all be on 'cuda:0'; give --device cuda"),
        join_process_group("cuda:0"),
    ):
        pass


def test_alone_nothing_is_split():
    mine = find_process_group()
    assert (mine.rank, mine.size, mine.is_main) == (0, 1, True)
    x = torch.randn(5, 3)
    assert mine.shard_apply(lambda own: x[own], 5) is not None
    assert torch.equal(mine.shard_apply(lambda own: x[own] * 2, 5), x * 2)
    with join_process_group() as one:
        assert one.size == 1


def test_shares_cover_all_rows_once():
    for size in (1, 2, 3, 5):
        for n in (0, 1, 4, 7, 16):
            shares = [ProcessGroup(rank, size).shard(n) for rank in range(size)]
            rows = [i for share in shares for i in range(n)[share]]
            assert rows == list(range(n))
            assert max(s.stop - s.start for s in shares) - min(s.stop - s.start for s in shares) <= 1
            assert not n or max(s.stop - s.start for s in shares) == -(-n // size)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(ValueError, match=r"4 processes on \d GPUs.*--device cpu"), join_process_group("cuda"):
        pass
