"""Adapters, one file an architecture."""
