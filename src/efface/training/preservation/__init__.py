"""Preservation, one file each: what is kept while the target is erased."""
