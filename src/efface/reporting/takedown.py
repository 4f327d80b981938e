"""The takedown record as one page to print."""

from ..compliance.takedown import Takedown
from .template import make_environment


def render_takedown(takedown: Takedown) -> str:
    """The page, which needs no network."""
    heads = {tuple(h.split("/")[:2]) for h in takedown.headlines}
    first = [m for m in takedown.rates if (m.metric, m.group) in heads]
    shown = first + [m for m in takedown.rates if m not in first and m.metric in ("esr1", "psr1", "robust", "asr")]
    return make_environment().get_template("takedown.html").render(t=takedown, rates=shown)
