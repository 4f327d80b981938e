"""Edits in other tools' file formats: written, checked by who will read them, and read in."""
