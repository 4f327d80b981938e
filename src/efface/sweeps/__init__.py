"""Many erasures at once: a grid of methods, concepts, seeds, strengths and attacks, run by processes or on Ray.

A grid is a TOML file (grid.py). It is expanded into jobs, one for each edit, and each job into cells: its erasure, its
evaluations, its attacks (cells.py). A cell is named by the hash of everything that determines its result, which is one
file: if the file exists, the work is done. Workers of this machine (local.py) and Ray (on_ray.py) run the same jobs on
the same files. Importing this imports no torch.
"""
