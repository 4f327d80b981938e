"""The weights by which joint attention reads a prompt; SD3 and FLUX.1 give them the same names.

Picture and prompt are two streams of one attention. The text stream has keys and values of its own
(`attn.add_k_proj`, `add_v_proj`), which read states that change from block to block; `context_embedder` comes before
all of them; and the pooled embedding reaches every block, of both streams, through `time_text_embed`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..cond import POOLED, Role, TextMap

JOINT_TEXT = "joint.text"
"""The input of the context embedder: all tokens of a prompt, from every text encoder."""
STREAM = "joint.stream"
"""The input of the text stream's keys and values: states of the network, which depend on more than the prompt."""
ROLES: tuple[tuple[Role, str, str], ...] = (
    ("embedder", r"^transformer\.context_embedder\.weight$", JOINT_TEXT),
    ("pooled", r"^transformer\.time_text_embed\.text_embedder\.linear_1\.weight$", POOLED),
    ("cross", r"^transformer\..*\.attn\.add_[kv]_proj\.weight$", STREAM),
)


def find_joint_text_maps(names: Iterable[str]) -> Sequence[TextMap]:
    """The text maps among these weights: embedder, pooled embedder, and the text stream's keys and values."""
    found = list(names)
    return [
        TextMap(role, name, part, decided=part != STREAM)
        for role, pattern, part in ROLES
        for name in found
        if re.search(pattern, name)
    ]
