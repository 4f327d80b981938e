"""`efface.neurons`: finds the neurons that an erasure switched off, and how much adversarial prompts activate them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import check_folder
from .case import Words, to_tuple
from .memory import with_memory_advice
from .progress import Progress, show_progress
from .resources import LazyModel, open_later

if TYPE_CHECKING:
    from ..diagnostics.neurons import Diagnosis
    from ..models.base import Model


@with_memory_advice
def neurons(
    model: Model | LazyModel | str | Path,
    edit: str | Path,
    concept: str,
    adversarial: Words,
    out: str | Path,
    *,
    compare: str | Path | Sequence[str | Path] = (),
    overwrite: bool = False,
    progress: Progress = None,
    **settings: Any,
) -> tuple[Diagnosis, dict[str, Any]]:
    """Finds the neurons that carry a concept by an edit's changes, and measures how adversarial prompts change them.

    After "Pruning for Robust Concept Erasing" (Yang et al., arXiv 2405.16534). The correlation rho is the paper's; the
    sensitivity delta is our reading of its words.

    Args:
        model, progress: as in `evaluate`.
        edit: the file of the edit; the neurons that it changed most are the concept's.
        concept: the prompt of the concept.
        adversarial: the prompts that should bring the concept back.
        out: the folder for `neurons.json` and `neurons.html`.
        compare: one further edit or several, with which the same neurons are measured.
        overwrite: whether the results of another request in the folder may be replaced.
        settings: fields of `efface.diagnostics.neurons.NeuronConfig`, such as top=0.05.

    Returns:
        The diagnosis, and the content of `neurons.json`.

    Raises:
        FileExistsError: the folder holds the results of another request, and `overwrite` is not set.
        ValueError: there is no adversarial prompt, an edit is named twice or of another base, or a number is
            impossible.
        OSError: a file is missing, or the folder can't be written in.
    """
    prompts = to_tuple(adversarial)
    if not prompts:
        raise ValueError('no adversarial prompt: name at least one, for example --adversarial "a feline pet"')
    folder = check_folder(out)
    from ..diagnostics.neurons import NeuronConfig, diagnose
    from ..edits.edit import Edit
    from ..files import check_request, write_whole
    from ..models.trajectory import choose_image_batch
    from ..reporting.neurons import render_neurons

    how = NeuronConfig(**settings)
    files = (edit, *to_tuple(compare))
    if len({Path(file).resolve() for file in files}) < len(files):
        raise ValueError(f"an edit is named twice: {', '.join(map(str, files))}")
    edits = {str(file): Edit.load(file) for file in files}
    opening = open_later(model)
    data = {"model": opening.name, "edits": list(edits), "edit_digests": [each.digest for each in edits.values()]}
    data |= {"concept": concept, "adversarial": list(prompts), "look": asdict(how)}
    check_request(folder / "neurons.json", data, overwrite)
    opened = opening.open()
    with show_progress(progress) as report:
        batch = choose_image_batch(opened.resolution)
        found = diagnose(opened, edits, concept, prompts, how, batch, lambda i, n: report("looking", i, n))
    data |= asdict(found)
    unit = "a share of the activation under the concept's prompt" if how.relative else "a mean absolute change"
    write_whole(folder / "neurons.json", json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    write_whole(folder / "neurons.html", render_neurons(found, f"Neurons of {concept}", unit))
    return found, data
