"""A stand-in for a CUDA device, for machines that have none; README.md says what it shows.

Its native part is loaded before torch is, which asks for CUDA while it is imported.
"""

import ctypes
import os

GUARD = ctypes.CDLL(os.environ["FAKE_GUARD"]) if "FAKE_GUARD" in os.environ else None
