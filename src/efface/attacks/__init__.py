"""Attacks, one file each: what tries to bring an erased concept back.

An attack is called by the name of its file, with hyphens for underscores. Its dataclass' defaults are its paper's; what
a bundled model needs instead stands in its defaults.toml, under [attack.NAME]. Importing this package imports no torch.
"""

from .configure import BASELINE, STANDARD, configured, describe, get, name_of, named, names, suggested

__all__ = ["BASELINE", "STANDARD", "configured", "describe", "get", "name_of", "named", "names", "suggested"]
