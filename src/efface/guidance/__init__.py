"""Guides, one file each, which erase while pictures are drawn and leave every weight unchanged."""
