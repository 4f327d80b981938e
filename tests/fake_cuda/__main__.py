"""`python -m fake_cuda SCRIPT ARGS` runs a script on the stand-in device."""

import runpy
import sys

from .install import install

install()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
