"""Guides, one file each: erasing while pictures are drawn, with every weight left alone."""
