"""Which ways a prompt takes into a network, and which of them an edit leaves as they were.

In SD3 and FLUX.1 a prompt comes in twice: by its tokens, and by a pooled embedding that modulates every block. An edit
of the tokens' layers alone leaves the other way open, by which an attack, or the plain prompt, may still bring the
concept in.
"""

from __future__ import annotations

from ..edits.edit import Edit
from ..models.base import Model
from ..records.audit import TextPath

ENCODER = "text encoder"
READS = {
    "cross": "keys and values that read the prompt's tokens",
    "embedder": "what comes between the prompt's tokens and the first block",
    "pooled": "what reads the prompt's pooled embedding",
    ENCODER: "the text encoders themselves",
}


def find_text_paths(model: Model, edit: Edit) -> tuple[TextPath, ...]:
    """The ways of a prompt into the network, each with how many of its weights the edit changes.

    None for a guide, which acts while drawing, and for a model that reads no text.
    """
    if edit.meta.get("guide"):
        return ()
    changed, maps = set(edit.names), model.text_maps()
    by_role = {role: [each.weight for each in maps if each.role == role] for role in ("cross", "embedder", "pooled")}
    if maps:
        by_role[ENCODER] = [name for name in model.weights if name.startswith("text_encoder")]
    return tuple(
        TextPath(role=role, reads=READS[role], weights=len(names), changed=len(changed & set(names)))
        for role, names in by_role.items()
        if names
    )


def name_open_paths(paths: tuple[TextPath, ...]) -> list[str]:
    """Sentences on the ways that an edit leaves open, the pooled one first.

    Tokens count as one way: who changed what comes before the first block, or what reads after it, has changed them. An
    edit of the text encoders changes all ways, so that none is open.
    """
    held = {path.role: path.changed for path in paths}
    if held.get(ENCODER):
        return []
    said = []
    if held.get("pooled") == 0:
        said.append(
            "the pooled embedding: no weight that reads it is changed, and it modulates every block; "
            "--weights with the subset 'pooled' beside the others would change it"
        )
    tokens = [held[role] for role in ("cross", "embedder") if role in held]
    if tokens and not any(tokens):
        said.append("the prompt's tokens: neither their embedder nor any keys or values that read them are changed")
    return said
