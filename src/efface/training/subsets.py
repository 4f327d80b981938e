"""Which weights may change: named subsets and regexes over checkpoint names.

A selection is a comma list; each part is a subset's name or a regular expression searched in the names, and a weight is
selected when any part matches. Names begin with the part of the pipeline: `unet.down_blocks.0…`,
`transformer.transformer_blocks.0…`, `text_encoder.…`. A subset means the same in a U-Net and in a transformer; those
that name layers of a U-Net select nothing in a transformer.

The filters of the field's code are written for CompVis names. Two traps in the translation: CompVis `out.` is
diffusers' `conv_norm_out` *and* `conv_out` (and must not match `to_out.`); CompVis `time_embed` is `time_embedding`
(and must not match the resnets' `time_emb_proj`). CompVis counts blocks through all levels: `input_blocks` 4 and 7 are
the first attentions of diffusers' second and third level down, `output_blocks` 6 and 8 the first and last of the third
up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_NET = r"(unet|transformer)\."
_TIME = r"unet\.time_embedding\.|transformer\.adaln_single\."
_OUT = r"unet\.conv_(norm_)?out\.|transformer\.(proj_out\.|scale_shift_table$)"

SUBSETS: dict[str, tuple[str, str]] = {
    "xattn": (rf"^{_NET}.*\battn2\.", "cross-attention: queries, keys, values and outputs (ESD-x)"),
    "xattn-strict": (rf"^{_NET}.*\battn2\.to_[kv]\.", "cross-attention keys and values"),
    "xattn-matching": (rf"^{_NET}.*\battn2\.to_[qkv]\.", "cross-attention queries, keys and values"),
    "noxattn": (
        rf"^(?!{_TIME}|{_OUT}){_NET}(?!.*\battn2\.)",
        "all but cross-attention, time embedding, output (ESD-u)",
    ),
    "xlayer": (
        r"^unet\.up_blocks\.2\.attentions\.[02]\..*\battn2\.",
        "cross-attention of two layers near the output: CompVis output_blocks 6 and 8 of Stable Diffusion 1.x and 2.x",
    ),
    "selflayer": (
        r"^unet\.down_blocks\.[12]\.attentions\.0\..*\battn1\.",
        "self-attention of two layers near the input: CompVis input_blocks 4 and 7 of Stable Diffusion 1.x and 2.x",
    ),
    "selfattn": (rf"^{_NET}.*\battn1\.", "self-attention"),
    "notime": (rf"^(?!{_TIME}|{_OUT}){_NET}", "all but the time embedding and the output layers"),
    "full": (rf"^{_NET}", "the whole denoiser"),
    "transformers": (
        r"^unet\..*\.attentions\.|^transformer\.transformer_blocks\..*\.(attn\d|ff)\.",
        "the transformer blocks: attention and feed-forward layers (SPM)",
    ),
}


def select(names: Iterable[str], selection: str) -> list[str]:
    """The names that `selection` chooses, in the order given.

    Raises:
        ValueError: a part is empty, is no regular expression, or matches nothing; says what would have worked.
    """
    names = list(names)
    chosen: set[str] = set()
    for part in selection.split(","):
        matched = {name for name in names if _pattern(part.strip()).search(name)}
        if not matched:
            raise ValueError(f"{part.strip()!r} selects no weight; {_what_works(names)}")
        chosen |= matched
    return [name for name in names if name in chosen]


def _pattern(part: str) -> re.Pattern[str]:
    if not part:
        raise ValueError(f"empty selection; give some of {', '.join(SUBSETS)}, or a regular expression")
    pattern = SUBSETS[part][0] if part in SUBSETS else part
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"{part!r} is neither a subset ({', '.join(SUBSETS)}) nor a regular expression: {error}"
        ) from error


def _what_works(names: list[str]) -> str:
    works = [key for key, (pattern, _) in SUBSETS.items() if any(re.search(pattern, name) for name in names)]
    groups = sorted({".".join(name.split(".")[:2]) for name in names})
    return f"subsets that do: {', '.join(works) or 'none'}; names begin with: {', '.join(groups) or 'nothing'}"
