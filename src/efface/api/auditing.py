"""`efface.audit`: finds what an edit damaged most by a search, and confirms it by pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import describe_missing
from .case import Case
from .memory import with_memory_advice
from .progress import Progress, show_progress
from .resources import LazyModel, build_judges, open_later, open_to_judge

if TYPE_CHECKING:
    from ..edits.edit import Edit
    from ..models.base import Model
    from ..records.audit import Audit
    from ..scorers import Judge


@with_memory_advice
def audit(
    model: Model | LazyModel | str | Path,
    edit: Edit | str | Path,
    out: str | Path,
    *,
    vocabulary: str | Path | Sequence[str] = (),
    scorers: Sequence[str | Judge] = (),
    progress: Progress = None,
    **settings: Any,
) -> Audit:
    """Searches a vocabulary for the words that an edit damaged most, and draws them before and after the edit.

    Args:
        model, edit, scorers, progress: as in `evaluate`; scorers are judges of objects and CLIPs.
        out: the folder for audit.json, audit.png and the pictures; pictures that are there already are not drawn again.
        vocabulary: the words to search, or a file of them, one a line; by default the model's most common words and its
            world's names (of a bundled model, the things and styles that it can draw).
        settings: fields of `efface.diagnostics.audit.AuditConfig`, such as worst=12.

    Returns:
        The content of audit.json: `findings` has the words that were drawn, `ranking` all words that were searched,
        the most damaged first, and `open_paths` the ways from the prompt into the network that the edit leaves
        unchanged.

    Raises:
        ValueError: there are too few words, or none in the file, a scorer is neither of the two, or the edit is of
            another base.
        FileNotFoundError: there is no such file of words.
    """
    opening, folder = open_later(model), Path(out)
    if isinstance(vocabulary, str | Path) and not Path(vocabulary).is_file():
        raise FileNotFoundError(f"{describe_missing(vocabulary)}; it is to hold words, one a line")
    from ..diagnostics.audit import AuditConfig
    from ..diagnostics.audit import audit_edit as search
    from ..diagnostics.audit import list_vocabulary as searched
    from ..files import read_words

    how = AuditConfig(**settings)
    case = Case.of(opening, edit, folder)
    given = read_words(str(vocabulary)) if isinstance(vocabulary, str | Path) else list(vocabulary)
    if isinstance(vocabulary, str | Path) and not given:
        raise ValueError(f"{vocabulary} holds no words; it is to hold words, one a line")
    judges = build_judges(opening.name, None, scorers, case.known) if case.known or scorers else []
    if other := [s.name for s in judges if scorers and s.question not in ("object", "match")]:
        raise ValueError(f"an audit asks judges of objects and a CLIP; scorer {other[0]} is neither")
    judges = [s for s in judges if s.question in ("object", "match")]
    opened = open_to_judge(opening)
    words = searched(opened, case.request, case.known, given)
    with show_progress(progress) as report:
        return search(opened, case.file, case.request, words, judges, folder, how, case.known, report)
