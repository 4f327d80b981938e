"""The grids of our claims; `python -m recipes.evidence` runs them all."""
