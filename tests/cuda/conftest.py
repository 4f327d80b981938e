"""The scripts here are run on the stand-in for a GPU by the tests beside them, and hold no tests of their own."""

collect_ignore_glob = ["*_script.py"]
