"""Selects the weights that may change, by named subsets and regular expressions over checkpoint names.

A selection is a comma-separated list of subsets' names and of regular expressions that are searched in the names; a
weight is selected when any part matches. Names begin with the part of the pipeline: `unet.down_blocks.0…`,
`transformer.transformer_blocks.0…`, `text_encoder.…`. A subset means the same in a U-Net and in a transformer; those
that name layers of a U-Net select nothing in a transformer. In joint attention (SD3, FLUX, Qwen-Image) cross-attention
means its text stream, `attn.add_q_proj`, `add_k_proj`, `add_v_proj` and `to_add_out`; an `attn2` beside such an `attn`
(SD3.5-medium) reads the picture alone, and is self-attention. In a single stream (Z-Image) one attention is both, and
its weights read the picture as well.

The filters in published code are written for CompVis names. Two traps in the translation: CompVis `out.` is
diffusers' `conv_norm_out` *and* `conv_out` (and must not match `to_out.`); CompVis `time_embed` is `time_embedding`
(and must not match the resnets' `time_emb_proj`). CompVis counts blocks through all levels: `input_blocks` 4 and 7 are
the first attentions of diffusers' second and third level down, `output_blocks` 6 and 8 the first and last of the third
up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_NET = r"(unet|transformer)\."
_TIME = (
    r"unet\.time_embedding\.|transformer\.(adaln_single|time_embed|t_embedder|time_guidance_embed)\."
    r"|transformer\.time_text_embed\.(timestep|guidance)_embedder\."
)
_OUT = r"unet\.conv_(norm_)?out\.|transformer\.(proj_out\.|norm_out\.|all_final_layer\.|scale_shift_table$)"


def _list_subsets(cross: str, keys: str, matching: str, both: str, self_: str) -> dict[str, tuple[str, str]]:
    """The subsets by name, pattern and description, given patterns of the layers within an attention."""
    return {
        "xattn": (rf"^{_NET}.*{cross}", "cross-attention: queries, keys, values and outputs (ESD-x)"),
        "xattn-strict": (rf"^{_NET}.*{keys}", "cross-attention keys and values"),
        "xattn-matching": (rf"^{_NET}.*{matching}", "cross-attention queries, keys and values"),
        "cross": (rf"^{_NET}.*{keys}", "the text maps of the role cross: keys and values, as xattn-strict"),
        "embedder": (
            r"^transformer\.(context_embedder|caption_projection|txt_in|cap_embedder)\.",
            "the layers between a text encoder and the first block (UCE on FLUX: context_embedder)",
        ),
        "pooled": (
            r"^transformer\.time_text_embed\.text_embedder\.|^unet\.add_embedding\.",
            "the layers that read the pooled embedding of a prompt",
        ),
        "text-encoders": (r"^text_encoder(_\d)?\.", "all text encoders"),
        "text-encoder-full": (
            r"^text_encoder(_\d)?\.(text_model\.)?(encoder|final_layer_norm)\.",
            "text encoders without their embeddings and projections (AdvUnlearn's text_encoder_full)",
        ),
        "qk": (
            rf"^{_NET}.*{both}",
            "queries and keys of cross-attention, or of both streams of joint attention (GEM)",
        ),
        "text-qk": (
            r"^transformer\.transformer_blocks\..*\battn\.add_[qk]_proj\.",
            "queries and keys of the text's stream of joint attention (EraseAnything)",
        ),
        "noxattn": (
            rf"^(?!{_TIME}|{_OUT}){_NET}(?!.*{cross})",
            "all but cross-attention, time embedding, output (ESD-u of the first release)",
        ),
        "noxattn-layers": (
            rf"^{_NET}(?!.*{cross})(?!.*norm\w*\.(weight|bias)$)(?!.*scale_shift_table)",
            "all linear layers and convolutions but cross-attention (ESD-u of the second release)",
        ),
        "xlayer": (
            r"^unet\.up_blocks\.2\.attentions\.[02]\..*\battn2\.",
            "cross-attention of two layers near the output: CompVis output_blocks 6 and 8 of Stable Diffusion 1.x and "
            "2.x",
        ),
        "selflayer": (
            r"^unet\.down_blocks\.[12]\.attentions\.0\..*\battn1\.",
            "self-attention of two layers near the input: CompVis input_blocks 4 and 7 of Stable Diffusion 1.x and 2.x",
        ),
        "selfattn": (rf"^{_NET}.*{self_}", "self-attention"),
        "notime": (rf"^(?!{_TIME}|{_OUT}){_NET}", "all but the time embedding and the output layers"),
        "full": (rf"^{_NET}", "the whole denoiser"),
        "transformers": (
            r"^unet\..*\.attentions\.|^transformer\..*\b(attn\d?|attention|ff|ff_context|feed_forward|img_mlp|txt_mlp)\.",
            "the transformer blocks: attention and feed-forward layers (SPM)",
        ),
    }


SUBSETS = _list_subsets(
    r"\battn2\.", r"\battn2\.to_[kv]\.", r"\battn2\.to_[qkv]\.", r"\battn2\.to_[qk]\.", r"\battn1\."
)
"""The subsets of a network with cross-attention."""
JOINT = _list_subsets(
    r"\battn\.(add_[qkv]_proj|to_add_out|norm_added_[qk])\.",
    r"\battn\.add_[kv]_proj\.",
    r"\battn\.add_[qkv]_proj\.",
    r"\battn\.(add_[qk]_proj|to_[qk])\.",
    r"\b(attn\.(to_[qkv]|to_out|norm_[qk])|attn2)\.",
)
"""The subsets of a network with joint attention."""


SINGLE = _list_subsets(
    r"\blayers\.\d+\.attention\.",
    r"\blayers\.\d+\.attention\.to_[kv]\.",
    r"\blayers\.\d+\.attention\.to_[qkv]\.",
    r"\blayers\.\d+\.attention\.to_[qk]\.",
    r"\battention\.",
)
"""The subsets of a network with a single stream, whose attention is both."""


def find_subsets(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The subsets by name, with pattern and description, for a network with these weights."""
    held = set(names)
    if any(".attn.add_k_proj." in name for name in held):
        return JOINT
    return SINGLE if any(name.startswith("transformer.layers.") for name in held) else SUBSETS


def select(names: Iterable[str], selection: str) -> list[str]:
    """The names that `selection` chooses, in the order given.

    Raises:
        ValueError: a part is empty, is no regular expression, or matches nothing; the message says what would have
            worked.
    """
    names = list(names)
    chosen: set[str] = set()
    for part in selection.split(","):
        pattern = _build_pattern(part.strip(), find_subsets(names))
        matched = {name for name in names if pattern.search(name)}
        if not matched:
            raise ValueError(f"{part.strip()!r} selects no weight; {_say_what_works(names)}")
        chosen |= matched
    return [name for name in names if name in chosen]


def _build_pattern(part: str, subsets: Mapping[str, tuple[str, str]]) -> re.Pattern[str]:
    if not part:
        raise ValueError(f"empty selection; give some of {', '.join(SUBSETS)}, or a regular expression")
    pattern = subsets[part][0] if part in subsets else part
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"{part!r} is neither a subset ({', '.join(SUBSETS)}) nor a regular expression: {error}"
        ) from error


def _say_what_works(names: list[str]) -> str:
    works = [
        key for key, (pattern, _) in find_subsets(names).items() if any(re.search(pattern, name) for name in names)
    ]
    groups = sorted({".".join(name.split(".")[:2]) for name in names})
    return f"subsets that do: {', '.join(works) or 'none'}; names begin with: {', '.join(groups) or 'nothing'}"
