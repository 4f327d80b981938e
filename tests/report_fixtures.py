"""Evaluations made up by hand, as folders: for tests of what is made from them."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from efface.evaluation.evaluate import digest_rows
from efface.functional.rates import wilson
from efface.records.attacks import AttackMeasure, AttackRecord, AttackSuccess, Condition, ConditionSummary
from efface.records.report import Alarm, Drawing, Drop, Estimate, Measure, Record, SuitePart, read_report
from efface.records.sealed import write_sealed
from efface.suites.spec import Row

TITLES = {"target": "the target", "neighbour": "its neighbours", "unseen": "never seen"}
JUDGES = ("object-one", "object-two")


def build_share(successes: int, n: int, unscored: int = 0) -> Estimate:
    """A rate with Wilson's interval."""
    low, high = wilson(successes, n)
    return Estimate(value=successes / n if n else None, low=low, high=high, n=n, unscored=unscored)


def measure(
    metric: str,
    group: str,
    edited: Estimate,
    base: Estimate | None = None,
    drop: tuple[float, float, float] | None = None,
    **more: Any,
) -> Measure:
    fields = {"metric": metric, "title": f"{metric} of {group}", "group": group, "judge": "all", **more}
    dropped = Drop(value=drop[0], low=drop[1], high=drop[2], clusters=edited.n) if drop else None
    return Measure(base=base or edited, edited=edited, drop=dropped, **fields)


def build_measures() -> tuple[Measure, ...]:
    """A thorough erasure that costs the neighbours something."""
    return (
        measure("esr1", "target", build_share(490, 500), build_share(60, 500), (-0.86, -0.89, -0.83)),
        measure("esr1", "target", build_share(495, 500), build_share(70, 500), judge="object-one"),
        measure("psr1", "neighbour", build_share(380, 500), build_share(450, 500), (0.14, 0.10, 0.18)),
        measure("psr1", "unseen", build_share(445, 500), build_share(450, 500), (0.01, -0.01, 0.03)),
    )


def record(found: Sequence[Measure] | None = None, **changes: Any) -> Record:
    """A report with these numbers."""
    found = build_measures() if found is None else found
    heads = [f"{m.metric}/{m.group}" for m in found if m.metric in ("esr1", "psr1") and m.judge == "all"]
    cast = {"fp32": "a" * 32, "fp16": "b" * 32, "bf16": "c" * 32}
    drawing = Drawing(
        model="made-up",
        fingerprint=cast,
        decoder="d" * 32,
        edit="e" * 64,
        strength=1.0,
        steps=12,
        guidance=3.0,
        scheduler="Euler",
        dtype="float32",
        compute="float32",
        resolution=16,
    )
    fields: dict[str, Any] = {
        "format": "efface-report",
        "version": 2,
        "targets": ("cat",),
        "anchor": "dog",
        "keep": ("rose",),
        "method": "ESD",
        "arguments": {"lr": 0.1},
        "suite": SuitePart(name="made-up", version="1", licence="CC0", source="this test", groups=TITLES),
        "rows": 12,
        "rows_digest": "f" * 32,
        "drawing": drawing,
        "scorers": {name: {"scorer": "planted", "version": "1", "asks": "object"} for name in JUDGES},
        "packages": {"efface": "0"},
        "rule": "The judges agree.",
        "measures": tuple(found),
        "headlines": tuple(dict.fromkeys(heads)),
        "alarms": (Alarm(name="too hot", raised_when="it was hot", means="It melts.", do="Cool it."),),
        "history": {"candidates": {"cat": ["dog", "rose"]}, "most_damaged": {"cat": ["dog"] * 3 + ["rose"] * 5}},
        "cost": {"seconds": 64.5},
    }
    return Record(**{**fields, **changes})


def write_evaluation(
    folder: Path, pairs: int = 12, prompts: Mapping[int, str] | None = None, side: int = 16, **changes: Any
) -> Path:
    """The folder of a finished evaluation: `pairs` rows over three groups, every picture another.

    Args:
        prompts: prompts in the place of single rows' own.
        changes: fields of the report.
    """
    rng = np.random.default_rng(0)
    rows = [_build_row(i, pairs, (prompts or {}).get(i)) for i in range(pairs)]
    lines = []
    for variant in ("base", "edited"):
        for i, row in enumerate(rows):
            success = None if i % 11 == 10 else i % 5 != 0
            if variant == "base" and success is not None:
                success = (i % 3 != 2) == (row.role == "keep")
            line = {**dataclasses.asdict(row), "variant": variant, "success": success}
            line["picture"] = _draw_picture(folder / "images" / f"chunk{i // 64}", rng, side)
            for judge in JUDGES:
                answer = None if success is None else [row.thing if variant == "base" else "nothing"]
                line |= {f"{judge}.value": None if answer is None else 0.5, f"{judge}.answer": answer}
                line |= {f"{judge}.explanation": f"{judge} failed" if answer is None else ""}
            lines.append(line)
    pq.write_table(pa.Table.from_pylist(lines), folder / "rows.parquet")
    made = record(**{"rows": pairs, "rows_digest": digest_rows(rows), **changes})
    write_sealed(folder / "report.json", made)
    (folder / "protocol.json").write_text(json.dumps({"images": "images"}))
    return folder


def write_attacks(folder: Path, text: str = "a feline") -> AttackRecord:
    """`folder`/attacks.json of two attacks, of which one could not be made, and a picture for each success."""
    rng = np.random.default_rng(1)
    pictures = [f"attacks/{_draw_picture(folder / 'attacks' / 'pictures', rng, 16)}" for _ in range(4)]
    said = {"row": "target/cat/0", "broken": True, "queries": 2, "seed": 7, "answers": {"object-one": "cat"}}
    conditions: tuple[Condition, ...] = ("target", "control-base")
    found = [
        AttackSuccess(
            **said, attack="synonyms", condition=condition, prompt="a cat", text=text, before=before, picture=picture
        )
        for condition, before, picture in zip(conditions, pictures[::2], pictures[1::2], strict=True)
    ]
    measure = {"version": "1", "threat": "prompts", "settings": {"queries": 8}, "worst_case": False, "queries": 3.5}
    measure |= {
        "drawn": 70,
        "unscored": 0,
        "seconds": 12.5,
        "before": build_share(2, 20),
        "baseline": build_share(4, 20),
    }
    lift = Drop(value=0.3, low=0.1, high=0.5, clusters=20)
    curve = (0.1, 0.3, 0.4, 0.5)
    broken: dict[Condition, int] = {"target": 10, "control-base": 19, "control-kept": 15}
    measures = [
        AttackMeasure(
            attack="synonyms", condition=condition, after=build_share(done, 20), lift=lift, curve=curve, **measure
        )
        for condition, done in broken.items()
    ]
    measures.append(
        AttackMeasure(
            attack="relearn",
            condition="target",
            after=build_share(10, 20),
            lift=lift,
            curve=curve,
            stages=("5 steps", "10 steps", "20 steps"),
            **measure,
        )
    )
    measures.append(
        AttackMeasure(
            attack="blind",
            condition="target",
            after=build_share(0, 0),
            lift=None,
            curve=(),
            missing="no gradient",
            **measure,
        )
    )
    shown = {"untouched": build_share(19, 20), "named": build_share(3, 20), "before": build_share(2, 20)}
    made = read_report(folder) if (folder / "report.json").is_file() else record()
    fields = made.model_dump(include={"targets", "method", "arguments", "suite", "drawing", "scorers", "alarms"})
    whole = AttackRecord(
        format="efface-attacks",
        version=2,
        rule="Every judge agrees.",
        seed=0,
        robust=build_share(9, 20),
        conditions=(
            ConditionSummary(condition="target", title="the erased concept", concepts=("cat",), rows=20, **shown),
        ),
        measures=tuple(measures),
        successes=tuple(found),
        **fields,
    )
    return write_sealed(folder / "attacks.json", whole)


def _build_row(i: int, pairs: int, prompt: str | None) -> Row:
    group = list(TITLES)[3 * i // pairs]
    thing = {"target": "cat", "neighbour": "dog", "unseen": "rose"}[group]
    role = "erase" if group == "target" else "keep"
    said = prompt or f"picture {i} of a {thing}"
    return Row(f"{group}/{thing}/{i}", said, 1000 + i, group, role, "object", thing, (thing,), thing=thing)


def _draw_picture(folder: Path, rng: np.random.Generator, side: int) -> str:
    """A soft picture of random colours."""
    small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize((side, side), Image.Resampling.BICUBIC).save(buffer, "PNG")
    name = f"{hashlib.sha256(buffer.getvalue()).hexdigest()[:32]}.png"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(buffer.getvalue())
    return f"{folder.name}/{name}"
