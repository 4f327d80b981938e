"""`efface record`: the takedown record of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import tyro

from .console import print_result, warn

if TYPE_CHECKING:
    from ..compliance.takedown import Takedown

EXIT = {"same": 0, "unsigned": 0, "differs": 1, "not checked": 3}


@dataclass(frozen=True)
class TakedownRecord:
    """Write the takedown record of an evaluation, or check the hashes of one.

    The record holds the request, the hashes of base and edit, the protocol, the rates with their intervals, what was
    not tested, and the date. It is written into the folder as takedown.json, with a page to print, takedown.html. An
    earlier record there that is signed is kept beside it, under another name.

    With --check every hash is computed again, and the signature is verified. The exit code is 0 where all hashes are
    the same, 1 where one differs, and 3 where none differs but one could not be computed.
    """

    example: ClassVar[str] = "efface record out/cat --edit cat.safetensors"
    folder: tyro.conf.Positional[Path]
    """Folder that `efface evaluate` wrote."""
    edit: Path | None = None
    """The edit's file, by default the path at which it was evaluated. The record keeps the path; a file that is not the
    evaluated edit is refused."""
    note: str = ""
    """Free text for the record, such as the reference of the request."""
    requester: str = ""
    """The person or organisation that made the request."""
    responder: str = ""
    """The person or organisation that answers the request and signs."""
    date: str = ""
    """Date of the record, as 2026-01-31; today's (UTC) by default."""
    sign: Path | None = None
    """Sign the record with this SSH key (`ssh-keygen -t ed25519` makes one): the signature is takedown.json.sig."""
    check: bool = False
    """Compute the hashes in the folder's takedown.json again and compare them."""
    signers: Path | None = None
    """With --check: the people whose signature is required, as a file of lines "NAME ssh-ed25519 AAAA…" (OpenSSH's
    allowed signers)."""
    model: str = ""
    """With --check: the base's present name or folder; by default the one in the evaluation."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> int:
        return self._check() if self.check else self._write()

    def _write(self) -> int:
        if self.model:
            raise ValueError("--model goes with --check; the record takes the base from the evaluation")
        if self.signers:
            raise ValueError("--signers goes with --check; --sign KEY signs a new record")
        from ..api.publishing import record

        made = record(
            self.folder,
            self.edit,
            note=self.note,
            date=self.date,
            requester=self.requester,
            responder=self.responder,
            sign=self.sign,
        )
        if not made.edit_file:
            warn("the edit's file is not where it was evaluated, so --check will ask for it; --edit FILE names it now")
        path = self.folder / "takedown.json"
        files = {"record": str(path), "page": str(path.with_suffix(".html"))}
        files |= {"signature": f"{path}.sig"} if self.sign else {}
        said = made.result.sentence if made.result else ""
        print_result({**files, "digest": made.digest, "result": said}, self.json, "\n".join([*files.values(), said]))
        return 0

    def _check(self) -> int:
        if self.note or self.date or self.requester or self.responder or self.sign:
            raise ValueError(
                "--note, --date, --requester, --responder and --sign go into a new record; --check changes none"
            )
        from ..compliance import checking, signature, takedown

        file = self.folder / "takedown.json"
        recorded = takedown.read_takedown(file)
        signed = signature.check_signature(file, recorded, self.signers)
        found = [*checking.check_hashes(self.folder, recorded, self.edit, self._fingerprint_base(recorded)), signed]
        lines = [f"{c.outcome:<12} {c.what}: {c.says}" for c in found]
        print_result([c.model_dump() for c in found], self.json, "\n".join(lines))
        outcomes = {c.outcome for c in found}
        return EXIT["differs"] if "differs" in outcomes else max(EXIT[o] for o in outcomes)

    def _fingerprint_base(self, recorded: Takedown) -> Mapping[str, str] | None:
        """Computes the base's present fingerprint; None where it can't be opened by the name in the evaluation."""
        from .. import load

        try:
            return load(self.model or recorded.drawing.model).fingerprint()
        except (OSError, ValueError) as error:
            if self.model:
                raise
            warn(f"the base: {error}")
            return None
