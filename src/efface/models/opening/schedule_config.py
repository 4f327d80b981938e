"""Checks the numbers of a stored scheduler before diffusers makes a scheduler from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LONGEST = 100_000
"""The largest number of training timesteps; published models have 1,000 to 4,000."""


def check_schedule_config(config: Mapping[str, Any], where: str) -> None:
    """Raises ValueError where a schedule is too long, or its numbers are no schedule.

    Args:
        config: the settings of a diffusers scheduler; absent ones have the scheduler's own defaults.
        where: the name, in errors, of the file that holds them.
    """
    if "num_train_timesteps" in config:
        steps = config["num_train_timesteps"]
        if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= LONGEST:
            raise ValueError(
                f"{where}: num_train_timesteps is {steps!r}; a whole number up to {LONGEST} would have worked"
            )
    for name in ("beta_start", "beta_end"):
        if name in config and not _is_share(config[name]):
            raise ValueError(f"{where}: {name} is {config[name]!r}; a number between 0 and 1 would have worked")
    betas = config.get("trained_betas")
    if betas is None:
        return
    if not isinstance(betas, list | tuple) or not 0 < len(betas) <= LONGEST or not all(map(_is_share, betas)):
        raise ValueError(f"{where}: trained_betas are no list of 1 to {LONGEST} numbers between 0 and 1")
    if len(betas) != config.get("num_train_timesteps", len(betas)):
        raise ValueError(
            f"{where}: {len(betas)} trained_betas for num_train_timesteps {config['num_train_timesteps']}; "
            "as many as timesteps would have worked"
        )


def _is_share(number: Any) -> bool:
    plain = isinstance(number, int | float) and not isinstance(number, bool)
    return plain and 0 < number <= 1  # of numbers that are none, and of whole ones of any length, false
