"""Objectives, one file each: what the model should predict for the target."""
