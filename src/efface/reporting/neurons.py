"""A page for a diagnosis of concept neurons: their sensitivity beside random neurons', and a plot of all neurons."""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup, escape

from ..diagnostics.neurons import Diagnosis
from ..plurals import write_count
from .svg import Canvas

PLOT = Canvas(width=560, height=340, left=64, right=14, title_x=14)
SHOWN = 2000
"""The number of dots for other neurons, which are picked evenly."""


def render_neurons(found: Diagnosis, title: str, unit: str) -> str:
    """Renders the page, which needs no network."""
    css = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    intro = (
        f"{len(found.chosen)} of {write_count(len(found.neurons), 'neuron')} have the largest correlation rho with "
        "the concept; the "
        f"states are at timesteps {', '.join(map(str, found.timesteps))}. delta is {unit}. Bands hold 95 % of random "
        "sets of as many neurons, as many from each layer; whiskers resample start noises. delta is our reading of "
        "words, for its formula could not be read."
    )
    parts = [
        Markup(
            "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{}</title><style>{}</style></head>"
        ).format(title, Markup(css)),
        Markup("<body><h1>{}</h1><p class='note'>{}</p>").format(title, intro),
        Markup("<h2>Mean delta of the concept neurons</h2>{}").format(plot_contrasts(found)),
        *(Markup("<h2>Every neuron, {}</h2>{}").format(name, plot_neurons(found, name)) for name in found.models),
        Markup("</body></html>\n"),
    ]
    return "\n".join(parts)


def plot_contrasts(found: Diagnosis) -> Markup:
    """Plots for each model the concept neurons' mean delta with its interval, over the band of random neurons."""
    rows = list(found.models.items())
    reach = 1.1 * max([max(s.same_layers.mean, s.same_layers.high, *(s.interval or (0,))) for _, s in rows] + [1e-12])
    step = (PLOT.width - PLOT.left - PLOT.right) / len(rows)
    marks = []
    for i, (name, s) in enumerate(rows):
        x, among = PLOT.left + (i + 0.5) * step, s.same_layers
        low, high = s.interval or (among.mean, among.mean)
        says = (
            f"{name}: {among.mean:.3g} ({low:.3g} to {high:.3g}); random {among.random:.3g} ({among.low:.3g} to "
            f"{among.high:.3g}); p = {among.p:.2g}"
        )
        top, bottom = PLOT.place_y(among.high / reach), PLOT.place_y(among.low / reach)
        marks.append(
            f'<g class="edit"><title>{escape(says)}</title>'
            f'<rect class="band" x="{x - step / 5:.1f}" y="{top}" width="{step / 2.5:.1f}" height="{bottom - top:.1f}" '
            'fill="var(--line)"/>'
            f'<line x1="{x:.1f}" y1="{PLOT.place_y(low / reach)}" x2="{x:.1f}" y2="{PLOT.place_y(high / reach)}"/>'
            f'<circle cx="{x:.1f}" cy="{PLOT.place_y(among.mean / reach)}" r="5"/>'
            f'<text x="{x:.1f}" y="{PLOT.place_y(0) + 18}" text-anchor="middle">{escape(name)}</text></g>'
        )
    return _plot(marks, "", "mean delta", reach)


def plot_neurons(found: Diagnosis, model: str) -> Markup:
    """Plots delta against rho, with a dot for each neuron; the concept's neurons are highlighted."""
    delta, chosen = found.models[model].delta, set(found.chosen)
    others = [i for i in range(len(found.neurons)) if i not in chosen]
    low, reach = min(*found.rho, 0.0), 1.05 * max(*delta, 1e-12)
    across = max(*found.rho, 1e-12) - low
    dots = [("base", i) for i in others[:: max(1, len(others) // SHOWN)]] + [("edit", i) for i in found.chosen]
    x, y = PLOT.place_x, PLOT.place_y
    marks = [
        f'<g class="{kind}"><title>{escape(found.neurons[i])}: rho {found.rho[i]:.3g}, delta {delta[i]:.3g}</title>'
        f'<circle cx="{x((found.rho[i] - low) / across)}" cy="{y(delta[i] / reach)}" r="2.5"/></g>'
        for kind, i in dots
    ]
    return _plot(marks, f"rho, from {low:.3g} to {low + across:.3g}", "delta", reach)


def _plot(marks: Sequence[str], x_title: str, y_title: str, reach: float) -> Markup:
    """Draws the marks over a grid whose vertical axis goes from 0 to `reach`."""
    ticks = [PLOT.draw_tick_y(v / 4, f"{v / 4 * reach:.2g}") for v in range(5)]
    return PLOT.draw([*ticks, *marks], x_title, y_title)
