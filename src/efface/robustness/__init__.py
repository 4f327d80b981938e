"""Attacks on an edited model and their controls: which attacks bring the concept back, and how often by chance."""
