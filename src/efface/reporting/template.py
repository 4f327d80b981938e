"""The pages' templates, which escape everything that is put into them."""

import json
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from . import verdict, wording

HERE = Path(__file__).parent
FILTERS = {
    "number": wording.format_number,
    "estimate": wording.format_estimate,
    "stacked": wording.format_stacked,
    "stacked_drop": wording.format_stacked_drop,
    "stacked_lift": wording.format_stacked_lift,
    "drop": wording.format_drop,
    "named": wording.format_name,
    "counted": wording.format_title,
    "card_title": wording.format_card_title,
    "fact": wording.format_fact,
    "method": wording.name_method,
    "brief": wording.format_brief,
    "rule": verdict.format_rule,
}
"""The functions that write numbers, by their names in templates."""


def make_environment() -> jinja2.Environment:
    """Returns the environment in which every template of this folder is rendered."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(FILTERS, script_json=format_script_json)
    return made


def format_script_json(data: Any) -> Markup:
    """Writes JSON for a script element: no character in it can end the element or begin another."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
