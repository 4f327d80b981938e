"""Attacks on an edited model, with their controls: who brings the concept back, and how much of that is chance."""
