"""Finds the paths by which a prompt enters a network, and which of them an edit leaves unchanged.

In SD3 and FLUX.1 a prompt enters twice: by its tokens, and by a pooled embedding that modulates every block. An edit of
the tokens' layers alone leaves the other path open, by which an attack, or the plain prompt, may still bring the
concept back.
"""

from __future__ import annotations

from ..edits.edit import Edit
from ..models.base import Model
from ..records.audit import TextPath

READS = {
    "cross": "keys and values that read the prompt's tokens",
    "embedder": "layers between the prompt's tokens and the first block",
    "pooled": "layers that read the prompt's pooled embedding",
}


def find_text_paths(model: Model, edit: Edit) -> tuple[TextPath, ...]:
    """The paths of a prompt into the network, each with the number of its weights that the edit changes.

    It is empty for a guide, which acts while drawing, and for a model that reads no text.
    """
    if edit.meta.get("guide"):
        return ()
    changed, maps = set(edit.names), model.list_text_maps()
    by_role = {role: [each.weight for each in maps if each.role == role] for role in READS}
    paths = [_look_at(role, READS[role], names, changed) for role, names in by_role.items()]
    for part in dict.fromkeys(part for parts in model.text_sources.values() for part in parts) if maps else ():
        feeds = tuple(way for way, parts in model.text_sources.items() if part in parts)
        names = [name for name in model.weights if name.startswith(f"{part}.")]
        paths.append(_look_at(part, f"a text encoder, whose {' and '.join(feeds)} are read", names, changed, feeds))
    return tuple(path for path in paths if path.weights)


def _look_at(role: str, reads: str, names: list[str], changed: set[str], feeds: tuple[str, ...] = ()) -> TextPath:
    return TextPath(role=role, reads=reads, weights=len(names), changed=len(changed & set(names)), feeds=feeds)


def name_open_paths(paths: tuple[TextPath, ...]) -> list[str]:
    """Sentences about the paths that an edit leaves open, the pooled one first.

    Tokens count as one path: an edit of the layers before the first block, or of those that read tokens in the blocks,
    closes it. An edit of text encoders only changes the paths that come from them: on FLUX.1, an edit of CLIP changes
    the pooled embedding, and T5's tokens stay open.
    """
    said = []
    pooled = _find_open(paths, "pooled", ("pooled",))
    if pooled is not None:
        said.append(
            f"the pooled embedding{pooled}: no weight that reads it is changed, and it modulates every block; "
            "--weights with the subset 'pooled' beside the others would change it"
        )
    tokens = _find_open(paths, "tokens", ("cross", "embedder"))
    if tokens is not None:
        said.append(
            f"the prompt's tokens{tokens}: neither their embedder nor any keys or values that read them are changed"
        )
    return said


def _find_open(paths: tuple[TextPath, ...], way: str, roles: tuple[str, ...]) -> str | None:
    """From which text encoders a path is open: "" for all of its own, None where it is closed or does not exist."""
    readers = [path for path in paths if path.role in roles]
    sources = [path for path in paths if way in path.feeds]
    open_ = [path.role for path in sources if not path.changed]
    if not readers or any(path.changed for path in readers) or not open_:
        return None
    return f" from {' and '.join(open_)}" if len(open_) < len(sources) else ""
