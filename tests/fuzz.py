"""Files cut short, with flipped bits, of wrong types, too large: `python tests/fuzz.py --cases 100000`.

Each case takes a whole example of a reader (`fuzz_readers`), damages it by chance (seeded: a case is known by its seed
and number), and reads it. It is read, or refused by a ValueError or OSError of one line that names the file; anything
else, a case of more than SECONDS of the processor, or one that needs more than MEMORY, is a fault.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fuzz_readers import READERS, Reader, read_quietly

SECONDS = 5.0
MEMORY = 2 * 2**30
"""Bytes that the process may grow by over all cases."""
ODD: tuple[Any, ...] = (
    *(None, True, [], {}, "", "x", "\x00", "ü" * 300, -1, 0, 10**9, 10**400, 1e308, float("nan"), float("inf")),
    *([None], {"x": {}}, [[]], "../../etc/passwd", "a/b", [1, "2"], {"version": 10**30}),
)
"""Values that stand where others were."""


@dataclass(frozen=True)
class Fault:
    """A case that was neither read nor refused in one sentence."""

    reader: str
    case: int
    says: str


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64)) if found else 0):
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def splice(data: bytes, rng: random.Random) -> bytes:
    """Bytes put in, taken out, or doubled at a random place."""
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    filling = (b"", rng.randbytes(rng.randrange(64)), data[a:b] * 2, b"\xff" * rng.randrange(64), b"[" * 5000)
    return data[:a] + rng.choice(filling) + data[b:]


def change_value(data: bytes, rng: random.Random) -> bytes:
    """JSON with a value of another type, without a key, or with one more; of safetensors its header."""
    if (whole := _parse(data)) is not None:
        return json.dumps(_change(whole, rng)).encode()
    size = int.from_bytes(data[:8], "little")
    if (whole := _parse(data[8 : 8 + size])) is None:
        return splice(data, rng)
    meta = whole.get("__metadata__") if isinstance(whole, dict) else None
    if isinstance(meta, dict) and (ours := _parse(str(meta.get("efface")).encode())) and rng.random() < 0.7:
        changed = {**whole, "__metadata__": {"efface": json.dumps(_change(ours, rng))}}
    else:
        changed = _change(whole, rng)
    text = json.dumps(changed).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def _parse(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _change(value: Any, rng: random.Random) -> Any:
    """A value with one of its parts, at any depth, another or gone."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return rng.choice(ODD)
    keys: Sequence[Any] = list(value) if isinstance(value, dict) else range(len(value))
    key = rng.choice(keys)
    out: Any = dict(value) if isinstance(value, dict) else list(value)
    if rng.random() < 0.15:
        del out[key]
    elif isinstance(out, dict) and rng.random() < 0.1:
        out[rng.choice(("x", "", "version", "__metadata__"))] = rng.choice(ODD)
    else:
        out[key] = _change(value[key], rng)
    return out


def change_table(data: bytes, rng: random.Random) -> bytes:
    """A parquet file with another, missing or mistyped column, or with none or many more rows."""
    try:
        table = pq.read_table(pa.BufferReader(data))
        place = rng.randrange(table.num_columns)
        name, n = table.column_names[place], table.num_rows
        odd = (pa.nulls(n), pa.array([1] * n), pa.array([[b"\xff"]] * n), pa.array([{"x": None}] * n))
        found = rng.choice(
            (
                table.remove_column(place),
                table.set_column(place, name, rng.choice(odd)),
                table.rename_columns([rng.choice(("id", "x", c)) for c in table.column_names]),
                table.slice(0, rng.randrange(n + 1)),
                pa.concat_tables([table] * 3),
                pa.table({name: pa.nulls(3_000_000, pa.string())}),
            )
        )
    except (pa.ArrowException, OSError, ValueError):
        return splice(data, rng)
    sink = pa.BufferOutputStream()
    pq.write_table(found, sink, compression=rng.choice(("snappy", "zstd")))
    return sink.getvalue().to_pybytes()


def replace_all(data: bytes, rng: random.Random) -> bytes:
    """Something else altogether."""
    return rng.choice(
        (b"", b"\x00", b"\xff\xfe", b"{}", b"[]", b"null", b'""', b"PAR1", rng.randbytes(200), b"a\n" * 9)
    )


DAMAGE: tuple[Callable[[bytes, random.Random], bytes], ...] = (cut, flip_bits, splice, change_value, replace_all)


def damage(reader: Reader, data: bytes, rng: random.Random) -> bytes:
    """The example of a reader, damaged once or twice."""
    ways = (*DAMAGE, change_table) if reader.file.endswith(".parquet") else DAMAGE
    for _ in range(rng.choice((1, 1, 2))):
        data = rng.choice(ways)(data, rng)
    return data


def examine(reader: Reader, folder: Path) -> tuple[str, str]:
    """How a case ended: "read", "refused" or "fault", and what was said."""
    began = time.process_time()
    try:
        read_quietly(reader, folder)
        outcome, says = "read", ""
    except (ValueError, OSError) as error:
        says = str(error)
        known = reader.file in says or str(folder) in says
        outcome = "refused" if known and "\n" not in says.strip() and len(says) < 2000 else "fault"
        says = f"{type(error).__name__}: {says}"
    except Exception as error:
        outcome, says = "fault", "".join(traceback.format_exception(error)[-3:])
    if (took := time.process_time() - began) > SECONDS:
        outcome, says = "fault", f"it took {took:.1f} s of the processor; {says}"
    return outcome, says


def run(cases: int, seed: int = 0, readers: Sequence[Reader] = READERS) -> Iterator[tuple[int, Reader, str, str]]:
    """Case after case: its number, its reader, how it ended, and what was said."""
    with tempfile.TemporaryDirectory() as top:
        folders = {reader.name: Path(top) / str(i) for i, reader in enumerate(readers)}
        for reader in readers:
            folders[reader.name].mkdir()
            reader.make(folders[reader.name])
            read_quietly(reader, folders[reader.name])  # whole, it is read
        whole = {reader.name: (folders[reader.name] / reader.file).read_bytes() for reader in readers}
        for case in range(cases):
            reader, rng = readers[case % len(readers)], random.Random(f"{seed}/{case}")
            file = folders[reader.name] / reader.file
            if file.is_dir():
                shutil.rmtree(file)
            file.write_bytes(damage(reader, whole[reader.name], rng))
            yield case, reader, *examine(reader, folders[reader.name])


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--cases", type=int, default=100_000)
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--reader", default="", help="only readers whose name holds this")
    given = flags.parse_args()
    faulthandler.enable()
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ended: Counter[str] = Counter()
    faults: dict[str, Fault] = {}
    chosen = [reader for reader in READERS if given.reader in reader.name]
    for case, reader, outcome, says in run(given.cases, given.seed, chosen):
        ended[outcome] += 1
        if outcome == "fault" and faults.setdefault(f"{reader.name}: {says[-120:]}", Fault(reader.name, case, says)):
            print(f"{reader.name}, case {case}: {says}", file=sys.stderr)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    took = time.monotonic() - began
    print(f"{given.cases} cases of {len(chosen)} readers in {took:.0f} s: {dict(ended)}; {grown / 2**10:.0f} MiB more")
    return int(bool(faults) or grown * 2**10 > MEMORY)


if __name__ == "__main__":
    sys.exit(main())
