"""`efface.push`: uploads an export or an edit to a repository of the hub, with a card of the measurements."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from ..files import describe_missing, hash_file
from ..models.loading import RECORD
from ..plurals import write_count
from .handing_on import hide_folder

if TYPE_CHECKING:
    from ..compliance.takedown import Takedown

CARD = "README.md"
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@final
@dataclass(frozen=True)
class Pushed:
    """What was, or would be, sent to the hub."""

    repository: str
    files: Mapping[str, Path]
    """The files beside the card, by their paths in the repository."""
    card: str
    url: str
    """The address of the commit; "" for a dry run."""


def push(
    source: str | Path,
    repository: str,
    *,
    licence: str,
    evaluation: str | Path | None = None,
    private: bool = True,
    existing: bool = False,
    endpoint: str | None = None,
    send: bool = False,
) -> Pushed:
    """Uploads an export or an edit to a model repository of the hub, with a generated model card.

    Nothing leaves the machine unless `send` is set; the result says what would be sent.

    Args:
        source: a folder or a file that `efface.export` wrote, or an edit's file.
        repository: OWNER/NAME.
        licence: the licence of the base, which also applies to the changed weights, by the hub's name ("openrail++").
        evaluation: a folder that `efface.evaluate` wrote, whose rates go into the card.
        private: whether only its owner can see a new repository.
        existing: whether to add a commit to an existing repository.
        endpoint: the address of a hub other than huggingface.co, to which large files are sent by Git LFS.
        send: whether to upload, as the user of `hf auth login`.

    Returns:
        What was sent, or would be: the model card, the files by their paths in the repository, and the address of the
        commit, which is empty if nothing was sent.

    Raises:
        FileNotFoundError, ValueError: there is no export or edit, no OWNER/NAME or no licence, or the evaluation is of
            another erasure.
        FileExistsError: the repository exists, and `existing` is not set.
        OSError: the hub can't be reached, or refuses.
    """
    if not REPOSITORY.fullmatch(repository):
        raise ValueError(f"{repository!r} names no repository; OWNER/NAME would have worked")
    if not licence.strip():
        raise ValueError("--licence is that of the base, such as openrail++; its model card names it")
    place = Path(source)
    about, files = _read_source(place)
    judged = _read_evaluation(Path(evaluation), about) if evaluation else None
    card = write_push_card(about, licence.strip(), judged)
    url = _send(repository, files, card, private, existing, endpoint) if send else ""
    return Pushed(repository, files, card, url)


def _read_source(place: Path) -> tuple[dict[str, Any], dict[str, Path]]:
    """The source's record, and its files by their paths in the repository."""
    from ..records.export import read_export

    if place.is_dir():
        if not (place / RECORD).is_file():
            raise ValueError(
                f"{place} holds no {RECORD}, which says what was erased from which model; a folder that `efface "
                "export` wrote would have worked (`efface revert` writes none, for it removes an edit; `efface import` "
                "makes an edit of what a model has beyond its base, and that can be exported)"
            )
        about = read_export(place / RECORD)
        held = sorted(file for file in place.rglob("*") if file.is_file() and file != place / CARD)
        return about, {file.relative_to(place).as_posix(): file for file in held}
    if not place.is_file():
        raise FileNotFoundError(describe_missing(place, "file or folder"))
    beside = place.with_suffix(".json")
    if beside.is_file():
        return read_export(beside), {each.name: each for each in (place, beside)}
    from ..edits.edit import Edit

    meta = Edit.load(place).meta
    asked = meta.get("request") or {}
    about = {
        "format": "edit",
        "target": asked.get("targets", ()),
        "anchor": asked.get("anchor", ""),
        "method": meta.get("method", ""),
        "model": hide_folder(str(meta.get("model", ""))),
        "base": meta.get("base", {}),
        "edit_sha256": hash_file(place),
        "strength_in_file": 1.0,
    }
    return about, {place.name: place}


def _read_evaluation(folder: Path, about: Mapping[str, Any]) -> Takedown:
    from ..compliance.takedown import build_takedown

    record = build_takedown(folder)
    if (judged := about.get("edit_sha256")) and judged != record.drawing.edit:
        raise ValueError(
            f"{folder} judged another edit: its sha256 is {record.drawing.edit[:16]}…, and what is handed on was made "
            f"of {judged[:16]}…; give its own evaluation"
        )
    strength = about.get("strength_in_file", about.get("strength", record.drawing.strength))
    if strength != record.drawing.strength:
        raise ValueError(
            f"{folder} judged the edit at strength {record.drawing.strength:g}, and what is handed on has it at "
            f"{strength:g}; give an evaluation at that strength"
        )
    same = sorted(record.request.targets) == sorted(about["target"]) and record.method == about["method"]
    base = set(record.drawing.fingerprint.values()) & set(about["base"].values())
    if not (same and base):
        raise ValueError(
            f"{folder} judged {', '.join(record.request.targets)} by {record.method}, which is not this erasure of "
            f"{', '.join(about['target'])} by {about['method']}, or of another base; give its own evaluation"
        )
    return record


def write_push_card(about: Mapping[str, Any], licence: str, record: Takedown | None) -> str:
    """Writes the model card: request, method, protocol, rates with intervals, what was not tested, licence."""
    from ..reporting.wording import format_title

    targets = ", ".join(about["target"]) or "a concept"
    lines = ["---", f"license: {json.dumps(licence)}", f"base_model: {json.dumps(about['model'])}"]
    lines += ["tags: [concept-erasure, efface]", "---", "", f"# {about['model']} without {targets}", ""]
    became = f", which became **{about['anchor']}**" if about.get("anchor") else ""
    lines += [f"Asked for was that the model no longer draws **{targets}**{became}. Method: {about['method']}.", ""]
    lines += [f"Files: format `{about['format']}`, made by efface. Licence of the base: {licence}.", ""]
    if {"residual", "worst_residual", "recommended_strength"} <= about.keys():
        lines += [
            f"The file leaves {about['residual']:.2%} of the change out (‖Δ − BA‖ / ‖Δ‖), at most "
            f"{about['worst_residual']:.2%} of one matrix. Recommended strength: {about['recommended_strength']:g}.",
            "",
        ]
    if (rounded := about.get("rounded_away", 0.0)) > 0.001:
        lines += [f"In {about['dtype']} {rounded:.1%} of the edit's change is rounded away.", ""]
    if (absent := about.get("absent")) and about["format"] == "diffusers":
        lines += [f"Give `from_pretrained` also `{', '.join(f'{part}=None' for part in absent)}`.", ""]
    if call := about.get("call"):
        asked = ", ".join(f"{name}={value}" for name, value in call.items())
        lines += [f"Give the pipeline's call `{asked}`, with which the model was trained.", ""]
    if record is None:
        lines += ["**Nothing was measured** for this card: how often the concept still appears is not known.", ""]
        return "\n".join(lines)
    lines += [
        "## What was measured",
        "",
        f"Suite {record.suite.name}, {write_count(record.rows, 'prompt')}, "
        f"{write_count(record.drawing.steps, 'step')}.",
    ]
    lines += ["95 % intervals.", "", "| measure | group | base | edited | n |", "| --- | --- | --- | --- | --- |"]
    for m in record.rates:
        base, edited = (_format_interval(estimate, m.unit) for estimate in (m.base, m.edited))
        lines.append(f"| {format_title(m)} | {m.group} | {base} | {edited} | {m.edited.n} |")
    lines += ["", "## What was not tested", "", *(f"- {each.what}: {each.why}" for each in record.untested), ""]
    return "\n".join(lines)


def _format_interval(e: Any, unit: str) -> str:
    if e.value is None:
        return "not judged"
    return f"{e.value:.1%} ({e.low:.1%} to {e.high:.1%})" if unit == "share" else f"{e.value:.3g}"


def _send(
    repository: str, files: Mapping[str, Path], card: str, private: bool, existing: bool, endpoint: str | None
) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    from ..files.hub import require_answer

    require_answer(endpoint or "")
    hub = HfApi(endpoint=endpoint)
    try:
        hub.create_repo(repository, private=private, exist_ok=existing)
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code == 409:
            raise FileExistsError(
                f"{repository} exists already; name another, or add --existing for a commit in it"
            ) from error
        raise OSError(f"the hub refuses {repository}: {str(error).splitlines()[0]}") from error
    with ExitStack() as held:
        added = [CommitOperationAdd(CARD, card.encode())]
        for name, file in files.items():
            # huggingface_hub sends large files by Xet, the storage of huggingface.co; open ones by Git LFS over HTTP,
            # which every hub speaks.
            own = os.fspath(file) if endpoint is None else held.enter_context(file.open("rb"))
            added.append(CommitOperationAdd(name, own))
        try:
            done = hub.create_commit(repository, added, commit_message="Add an erasure and its card")
        except (HfHubHTTPError, ValueError, RuntimeError) as error:  # the last two of a large file's upload
            why = " ".join(str(each).splitlines()[0] for each in (error, error.__cause__) if str(each or ""))
            raise OSError(f"the hub refuses the files of {repository}: {why}") from error
    return str(done.commit_url)
