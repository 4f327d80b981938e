"""Checks that tokenizers and text encoders fit each other."""

from __future__ import annotations

from typing import Any

from ...plurals import write_count

FURTHER = "_1"
"""The suffix that a textual inversion of several vectors gives to the token of its second vector."""
LONGEST = 100_000
"""A tokenizer without a maximum length reports a number far above this."""


def check_text(name: str, pipeline: Any) -> None:
    """Raises ValueError where a tokenizer has no words, or has tokens without a row in its text encoder."""
    for tail in ("", "_2", "_3"):
        tokenizer, encoder = (getattr(pipeline, f"{part}{tail}", None) for part in ("tokenizer", "text_encoder"))
        if tokenizer is not None and encoder is not None:
            _check_pair(name, f"tokenizer{tail}", tokenizer, f"text_encoder{tail}", encoder)
    _check_width(name, pipeline)


def _check_pair(name: str, part: str, tokenizer: Any, reader: str, encoder: Any) -> None:
    vocabulary = tokenizer.get_vocab()
    if len(set(tokenizer.all_special_ids) | set(tokenizer("a cat")["input_ids"])) < 2 or len(vocabulary) < 3:
        raise ValueError(
            f"the {part} of {name} knows {write_count(len(vocabulary), 'token')} and spells no word; its files are "
            "missing or "
            "damaged: fetch that folder again"
        )
    length, places = tokenizer.model_max_length, getattr(encoder.config, "max_position_embeddings", None)
    if not 2 < length <= LONGEST or (isinstance(places, int) and length > places):
        room = f"the {reader} has room for {places}" if isinstance(places, int) else "77 is what CLIP reads"
        raise ValueError(
            f"the {part} of {name} gives prompts {length} tokens, and {room}; set model_max_length in "
            f"{part}/tokenizer_config.json, or fetch that file again"
        )
    rows = encoder.get_input_embeddings().weight.shape[0]
    token, last = max(vocabulary.items(), key=lambda item: item[1])
    if last >= rows:
        raise ValueError(
            f"the {part} of {name} numbers its token {token!r} {last}, and the {reader} has rows for {rows} tokens; "
            f"call pipe.{reader}.resize_token_embeddings(len(pipe.{part})) and give the new rows values, or open the "
            "tokenizer that belongs to it"
        )


def _check_width(name: str, pipeline: Any) -> None:
    """Demands that the text encoders' states have the width that the network reads."""
    unet = getattr(pipeline, "unet", None)
    if unet is None or unet.config.get("encoder_hid_dim_type") is not None:
        return
    wide = unet.config.get("cross_attention_dim")
    encoders = [getattr(pipeline, part) for part in ("text_encoder", "text_encoder_2") if hasattr(pipeline, part)]
    if None in encoders:
        return  # the adapter raises if it needs an encoder
    given = sum(encoder.config.hidden_size for encoder in encoders)
    if given and isinstance(wide, int) and given != wide:
        raise ValueError(
            f"the text encoders of {name} give vectors of {given} numbers, and its unet reads {wide}; "
            "open parts that belong to one model"
        )


class SeveralVectors:
    """A tokenizer that spells out textual inversions of several vectors: "<toy>" as "<toy> <toy>_1 <toy>_2".

    It does what the pipelines do before they tokenize (`maybe_convert_prompt`); all else is the tokenizer's own.
    """

    def __init__(self, tokenizer: Any, pipeline: Any) -> None:
        self._tokenizer, self._pipeline = tokenizer, pipeline

    def __call__(self, texts: Any, *args: Any, **kwargs: Any) -> Any:
        listed = texts if isinstance(texts, str) else list(texts)
        return self._tokenizer(self._pipeline.maybe_convert_prompt(listed, self._tokenizer), *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def spell_out(tokenizer: Any, pipeline: Any) -> Any:
    """Wraps the tokenizer where it has tokens of several vectors, which the pipeline would spell out."""
    several = any(
        token.endswith(FURTHER) and token.removesuffix(FURTHER) in tokenizer.added_tokens_encoder
        for token in tokenizer.added_tokens_encoder
    )
    return SeveralVectors(tokenizer, pipeline) if several and hasattr(pipeline, "maybe_convert_prompt") else tokenizer
