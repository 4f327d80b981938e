"""Updates, one file each: which weights may move, and how."""
