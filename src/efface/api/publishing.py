"""`efface.report`, `efface.verify` and `efface.record`: results for others."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import check_file, find_relative
from .case import Words, to_tuple
from .progress import Progress, show_progress

if TYPE_CHECKING:
    from ..compliance.gate import GateResult
    from ..compliance.takedown import Takedown


def report(
    folders: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    imports: str | Path | Sequence[str | Path] = (),
    erased: Words = (),
    kept: Words = (),
    per_group: int | None = None,
    progress: Progress = None,
) -> Path:
    """Writes one HTML file, which needs no network, about evaluations, attacks and published results.

    Args:
        folders: one or several folders that `evaluate` or `attack` wrote.
        out: the page; beside PAGE.html comes PAGE_files/ with pictures at full size, report.json and rows.parquet.
        imports: result files of the ESD or EAP evaluation scripts, which are shown beside.
        erased, kept: the classes that were erased, or should stay, in the imported files.
        per_group: the number of pairs of pictures of each group; all by default.
        progress: as in `evaluate`.

    Returns:
        The page's file.

    Raises:
        FileNotFoundError, ValueError: a folder has no finished evaluation, or a file is damaged or unknown.
    """
    if per_group is not None and per_group < 1:
        raise ValueError(f"--per-group is a number of pairs, at least 1, got {per_group}")
    if (erased or kept) and not imports:
        raise ValueError("--erased and --kept are for imported files; give one with --import")
    from ..evaluation import published
    from ..reporting.page import write_page

    some = to_tuple(folders)
    if Path(out).suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out {out} must end in .html, for example {Path(out).with_suffix('.html')}")
    check_file(Path(out))
    places = [Path(folder).resolve() for folder in some]
    if twice := [folder for i, folder in enumerate(some) if places[i] in places[:i]]:
        raise ValueError(f"{twice[0]} is given twice; the page shows each evaluation once")
    gone, stay = to_tuple(erased), to_tuple(kept) or None
    others = [published.read_published(Path(path), gone, stay) for path in to_tuple(imports)]
    with show_progress(progress) as on_progress:
        return write_page(
            [Path(f) for f in some], Path(out), per_group, lambda i, n: on_progress("thumbnails", i, n), others
        )


def verify(
    folder: str | Path,
    fail_on: str | Sequence[str] = (),
    *,
    policy: str | Path = "",
    widest: float = 0.05,
) -> GateResult:
    """Judges an evaluation by rules, using the unfavourable bound of each interval.

    Args:
        folder: a folder that `evaluate` wrote.
        fail_on: rules that say what must not be, such as "esr1<0.95" or ("esr1<0.95", "psr1_drop>0.05").
        policy: a documented set of rules, by name ("default", "attacked"), or a TOML file with one; "default" if
            neither this nor `fail_on` is given.
        widest: an interval that contains the limit and is wider than this does not decide.

    Returns:
        The verdict. `outcome` is "holds", "failed" or "unjudged" (no rule failed, and at least one is undecided),
        `exit_code` the exit code of `efface verify`, and `findings` say for each rule why.

    Raises:
        FileNotFoundError, ValueError: there is no finished evaluation, a rule can't be read, or a rule of `fail_on` is
            about something that was not measured.
    """
    if not widest > 0:
        raise ValueError(f"--widest is a width above 0, got {widest:g}")
    from ..compliance import gate
    from ..compliance import rules as gate_rules
    from ..records.basis import read_evaluation

    rules = [gate_rules.parse_rule(text) for text in to_tuple(fail_on)]
    named = str(policy) or ("" if rules else "default")
    measured, attacks = read_evaluation(Path(folder))
    return gate.verify(measured, rules, gate_rules.find_policy(named).rules if named else (), widest, attacks)


def record(
    folder: str | Path,
    edit: str | Path | None = None,
    *,
    note: str = "",
    date: str = "",
    requester: str = "",
    responder: str = "",
    sign: str | Path | None = None,
) -> Takedown:
    """Writes the takedown record of an evaluation: `folder`/takedown.json, and takedown.html to print.

    A signed record that lies there, and says something else, is kept beside with its signature; a warning names it.

    Args:
        folder: a folder that `evaluate` wrote.
        edit: the edit's file, by default the one that was evaluated; it is checked that this edit was judged, and its
            path is recorded.
        note: free text for the record, such as the reference of the request.
        date: the date of the record, as 2026-01-31; today's (UTC) by default.
        requester, responder: who asked, and who answers and signs.
        sign: an SSH key that signs the record, into takedown.json.sig.

    Returns:
        The content of takedown.json.

    Raises:
        FileNotFoundError, ValueError: there is no finished evaluation, files do not belong together, the edit was not
            judged here, the date is invalid, or the key can't sign.
    """
    from ..compliance import signature, takedown
    from ..files import hash_bytes, write_whole
    from ..records.basis import read_evaluation
    from ..reporting.takedown import build_result, pick_pictures, render_takedown
    from ..reporting.verdict import build_verdict

    place = Path(folder)
    signer = signature.describe_key(Path(sign)) if sign else ""
    made = takedown.build_takedown(
        place,
        date,
        note,
        find_relative(edit, place) if edit else "",
        requester=requester,
        responder=responder,
        result=build_result(build_verdict(*read_evaluation(place))),
        signer=signer,
    )
    page, file = render_takedown(made, pick_pictures(place)), place / "takedown.json"
    made = made.model_copy(update={"page": hash_bytes(page.encode())})
    data = made.model_dump_json(indent=1) + "\n"
    if aside := signature.set_aside(file, data.encode()):
        warnings.warn(
            f"the earlier record was signed; it is kept, with its signature, as {aside}"
            + ("" if sign else ", and the new one is unsigned (--sign KEY signs it)"),
            stacklevel=2,
        )
    write_whole(place / takedown.PAGE, page)
    write_whole(file, data)
    if sign:
        signature.sign(file, Path(sign))
    return made
