"""Preservation terms, one file each: what is kept while the target is erased."""
