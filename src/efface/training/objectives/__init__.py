"""Objectives, one file each: what the student is to predict for the target."""
