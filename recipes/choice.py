"""Measure the rates by which `efface takedown --method auto` ranks methods: `python -m recipes.choice`.

It runs the grid `recipes/choice.toml`, which resumes where it was stopped, and writes `src/efface/api/choice.toml`, the
file that `auto` reads, and `docs/choice.md`, its page.
"""

import argparse
import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from textwrap import fill

import efface
from efface.api.choosing import CHOICE, SHORT, ChoiceTable, Rates, read_choice_table
from efface.files import write_whole
from efface.sweeps.grid import read_grid

GRID = Path(__file__).with_suffix(".toml")
PAGE = Path(__file__).parents[1] / "docs" / "choice.md"
COMMAND = "python -m recipes.choice"
COLUMNS = {"esr1": ("esr1", "target"), "neighbour": ("psr1", "neighbour"), "unseen": ("psr1", "unseen")}
"""For each field of `Rates`, the metric and the group in the sweep's table from which it is averaged."""
NO_BREAKS = {"break_long_words": False, "break_on_hyphens": False}
PACKAGES = ("efface", "torch", "diffusers", "transformers")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the grid, and writes the file and the page; exits with a message where a job of the grid failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/choice"),
        help="folder of the sweep; a sweep that was stopped there is continued",
    )
    parser.add_argument("--workers", type=int, default=1, help="number of processes")
    parser.add_argument("--device", help="device of each process; by default a GPU where there is one")
    parser.add_argument("--grid", type=Path, default=GRID, help="the grid to run")
    parser.add_argument(
        "--method",
        action="append",
        help="measure this method of the grid alone, and keep the other rows of --file; repeat for several",
    )
    parser.add_argument("--file", type=Path, default=CHOICE, help="file of rates to write, which `auto` reads")
    parser.add_argument("--page", type=Path, default=PAGE, help="page of the documentation to write")
    args = parser.parse_args(argv)
    grid = read_grid(args.grid)
    found = efface.sweep(
        grid,
        args.out,
        methods=args.method or (),
        workers=args.workers,
        device=args.device,
        on_answer=lambda job, answer, done, total: print(f"{done} of {total}  {job.name}", flush=True),
        command=COMMAND,
    )
    if found.failed:
        told = "; ".join(f"{name}: {why}" for name, why in found.failed)
        raise SystemExit(f"nothing was written, because {len(found.failed)} jobs failed: {told}")
    (model,), (seed,), pictures = grid.models, grid.seeds, set(grid.sizes.values())
    with found.table.open(encoding="utf-8", newline="") as stream:
        methods = average(csv.DictReader(stream))
    table = ChoiceTable(
        model=model,
        fingerprint=efface.load(model).fingerprint()["fp32"][:SHORT],
        concepts=tuple(concept for some in grid.concepts.values() for concept in some),
        pictures=max(pictures),
        seed=seed,
        command=COMMAND,
        versions={name: version(name) for name in PACKAGES},
        methods=methods,
    )
    table = add_rows(read_choice_table(args.file), table, args.method) if args.method else table
    write_whole(args.file, render_file(table))
    write_whole(args.page, render_page(read_choice_table(args.file)))
    print(f"{args.file}\n{args.page}")


def add_rows(held: ChoiceTable, measured: ChoiceTable, methods: Sequence[str]) -> ChoiceTable:
    """Puts the measured rates of these methods into the table that is held, in the place of their earlier rates.

    Raises:
        ValueError: the two are of other weights, concepts, seeds or numbers of pictures.
    """
    for name in ("model", "fingerprint", "concepts", "pictures", "seed"):
        if (was := getattr(held, name)) != (now := getattr(measured, name)):
            raise ValueError(f"the file's rates are of {name} {was!r}, and these of {now!r}; measure all methods")
    return replace(measured, methods={**held.methods, **{name: measured.methods[name] for name in methods}})


def average(lines: Iterable[Mapping[str, str]]) -> dict[str, Rates]:
    """Averages each method's rates over the concepts of a sweep.

    Args:
        lines: the lines of the sweep's table.

    Returns:
        The rates by method: ESR-1 in percent, and the losses of PSR-1 in percentage points, where a gain counts as 0.

    Raises:
        ValueError: a rate of the edited model or of the base is missing.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for line in lines:
        for name, where in COLUMNS.items():
            if (line["metric"], line["group"], line["judge"]) == (*where, "all"):
                if not line["value"] or not line["base"]:
                    raise ValueError(f"{line['method']} on {line['concept']} has no {'/'.join(where)}")
                value, base = float(line["value"]), float(line["base"])
                mine = found.setdefault(line["method"], {each: [] for each in COLUMNS})
                mine[name].append(100 * (value if name == "esr1" else base - value))
    return {
        method: Rates(**{name: round(max(0.0, sum(mine[name]) / len(mine[name])), 1) for name in COLUMNS})
        for method, mine in found.items()
    }


def render_file(table: ChoiceTable) -> str:
    """Writes the table as the TOML file that `auto` reads."""
    made = {key: value for key, value in asdict(table).items() if key not in ("methods", "versions")}
    lines = [f"{key} = {write_value(value)}" for key, value in made.items()]
    versions = ", ".join(f"{name} = {write_value(version)}" for name, version in table.versions.items())
    rows = [
        f"{name} = {{ {', '.join(f'{key} = {value}' for key, value in asdict(table.methods[name]).items())} }}"
        for name in table.rank()
    ]
    return "\n".join([*HEAD, "[made]", *lines, f"versions = {{ {versions} }}", "", "[methods]", *rows, ""])


def write_value(value: object) -> str:
    """Writes a text, a number or a list of texts in TOML's syntax, which for these is the same as JSON's."""
    return json.dumps(value, ensure_ascii=False)


HEAD = (
    f"# What `efface takedown --method auto` ranks methods by; docs/choice.md has the rule. Written by `{COMMAND}`.",
    "# Means over concepts: ESR-1 of the target in percent; the points of PSR-1 that near neighbours lose, and those",
    "# that things lose which the training never saw.",
    "",
)


def render_page(table: ChoiceTable) -> str:
    """Writes the table as the page `docs/choice.md`."""
    rows = [
        f"| {name} | {rates.esr1:.1f} | {rates.neighbour:.1f} | {rates.unseen:.1f} | {rates.balance:.1f} |"
        for name, rates in ((name, table.methods[name]) for name in table.rank())
    ]
    weights = f"weights `{table.fingerprint}`" if table.fingerprint else "earlier weights, whose digest was not noted"
    versions = ", ".join(f"{name} {version}" for name, version in table.versions.items())
    concepts, count = ", ".join(table.concepts), len(table.concepts)
    note = f"*{table.note}*\n\n" if table.note else ""
    told = {"weights": weights, "versions": versions, "concepts": concepts, "count": count, "note": note}
    parts = ABOUT.format(table=table, rows="\n".join(rows), **told).strip().split("\n\n")
    wrapped = [
        part if part.startswith(("#", "|")) else fill(" ".join(part.split()), 118, **NO_BREAKS) for part in parts
    ]
    return "\n\n".join(wrapped) + "\n"


ABOUT = """# How `auto` chooses methods

{note}`efface takedown --method auto` does not try every method. It tries the first two (`--profile quick`), three
(`standard`) or four (`thorough`) methods of the table below that serve the model and the request. It keeps the one
with the best result on *your* model and *your* target: the better verdict; of equal verdicts, the higher ESR-1 less
the largest loss of PSR-1 in any group of pictures that was to stay. The table decides what is tried, and the
measurement decides what is kept.

Methods are ranked by their *balance*: ESR-1 of the target, less the points of PSR-1 that near neighbours lose, less
the points that things lose which the training never saw ([what the numbers mean](understand/numbers.md)). A gain
counts as no loss. Only methods that are trained or solved and need nothing but the target's name stand in the table.
Methods that need an anchor (`ac`, `p-ac`) or only act while pictures are drawn (`negative`, `sld`, `safree`) are tried
where they are named with `--method`. So is `spm`: the table has its rates, but they are those with its gate, which acts
while efface draws, and no file of weights can hold it. With `--set spm.gate=False` it changes weights, and `auto` tries
it like the others.

| method | ESR-1, target | near neighbours lose | never seen lose | balance |
| --- | --- | --- | --- | --- |
{rows}

Measured on {table.model} ({weights}): the concepts {concepts}, {table.pictures} pictures in each group for each
concept and method, training seed {table.seed}; means over the concepts, in percent and in percentage points. With
{count} concepts, methods whose balances lie a few points apart are not told apart. {versions}.

Made by `{table.command}`, which runs the grid `recipes/choice.toml` and writes this page and the file that `auto`
reads, `src/efface/api/choice.toml`. The plan of a takedown names the table's model and weights, and says where the
model at hand has others.
"""


if __name__ == "__main__":
    main()
