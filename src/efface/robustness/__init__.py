"""Attacks on an edited model with their controls: which attacks bring the concept back, and how much of that is
chance."""
