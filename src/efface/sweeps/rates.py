"""The seconds that pieces of a sweep take, for a forecast: measured ones of the bundled models, or the user's own."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..catalog import ATTACKS, METHODS
from ..files import read_toml
from ..models.loading import BUNDLED

FILE = "seconds.toml"
"""What was measured, in the folder of a bundled model; `python -m benchmarks.sweep_rates` writes it."""


@dataclass(frozen=True)
class Rates:
    """Seconds of one device."""

    picture: float = 1.0
    """A picture, drawn and judged."""
    update: float = 1.0
    """An update of the weights, by methods that `fits` does not name."""
    fits: Mapping[str, float] = field(default_factory=dict)
    """By method: a whole erasure with the updates that the model suggests."""
    queries: Mapping[str, float] = field(default_factory=dict)
    """By attack: a picture of it, with the search that comes before it."""
    audit: float = 0.0
    """A word of an audit's search for those that changed most, before it draws any."""
    neurons: float = 0.0
    """Finding an edit's concept neurons, for each of the seeds that are looked at."""
    purify: float = 1.0
    """One of the three pictures of a purification in 50 steps: the base's own, and those drawn again."""
    measured: bool = False
    """Whether these were measured of the model, on one core."""

    def get_query(self, attack: str) -> float:
        """A picture of an attack; as long as any picture where nothing else was measured."""
        return self.queries.get(attack, self.picture)

    def scale(self, picture: float | None, update: float | None) -> Rates:
        """The rates of another device, of which these two are known: what goes with each is as much slower."""
        pictures = 1.0 if picture is None else picture / self.picture
        updates = 1.0 if update is None else update / self.update
        return Rates(
            self.picture * pictures,
            self.update * updates,
            {name: value * updates for name, value in self.fits.items()},
            {name: value * pictures for name, value in self.queries.items()},
            self.audit * pictures,
            self.neurons * pictures,
            self.purify * pictures,
            self.measured,
        )


@functools.cache
def read_rates(model: str) -> Rates:
    """What was measured of a bundled model; a second each for any other.

    Raises:
        ValueError: the file names a method or an attack that there is none of.
    """
    file = BUNDLED / model / FILE
    if not model or "/" in model or not file.is_file():
        return Rates()
    found = read_toml(file)
    fits = {METHODS.find_name(name): float(value) for name, value in found.get("fit", {}).items()}
    queries = {ATTACKS.find_name(name): float(value) for name, value in found.get("query", {}).items()}
    single = {name: float(found[name]) for name in ("picture", "update", "audit", "neurons", "purify") if name in found}
    return Rates(fits=fits, queries=queries, measured=True, **single)
