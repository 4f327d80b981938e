"""Updates, one file each: which weights may change, and how."""
