"""An export that lies in the folder of a takedown already: it must be of the edit that was judged."""

from __future__ import annotations

import json
import types
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import pytest

from efface.api.takedown_stages import Trial, require_own_export
from efface.files import hash_file
from efface.models.loading import RECORD


def test_an_export_of_an_edit_that_was_fitted_there_before_is_refused(tmp_path: Path) -> None:
    """Whoever removes an edit and fits it again would hand on the earlier one with the new one's record."""
    edit = tmp_path / "esd" / "edit.safetensors"
    edit.parent.mkdir()
    edit.write_bytes(b"fitted again")
    trial = Trial("esd", edit, tmp_path, *[cast(Any, None)] * 2)
    work = cast(Any, types.SimpleNamespace(out=tmp_path))
    require_own_export(work, trial)
    (place := edit.parent / "export").mkdir()
    facts = {"format": "diffusers", "target": ["cat"], "method": "ESD", "model": "m", "base": {}}
    for said, refused in ((hash_file(edit), False), ("", False), ("0" * 64, True)):
        (place / RECORD).write_text(json.dumps(facts | ({"edit_sha256": said} if said else {})))
        with pytest.raises(ValueError, match=r"export is of another edit than") if refused else nullcontext():
            require_own_export(work, trial)
