"""The pages' templates, with everything escaped that is put into them."""

import json
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from . import wording

HERE = Path(__file__).parent


def environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("number", "estimate", "stacked", "stacked_drop", "drop", "named", "card_title", "bar"):
        made.filters[name] = getattr(wording, name)
    made.filters["script_json"] = script_json
    return made


def script_json(data: Any) -> Markup:
    """JSON that may stand in a script element: no character of it can end the element or begin another."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
