"""Preservation, one file each: what is held in place while the target is erased."""
