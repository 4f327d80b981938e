"""Writes and reads all files: whole or not at all, with hashes and versions; tensors, pictures and captions.

Importing this imports no torch; what reads or writes tensors does.
"""

from .atomic import make_scratch, new_file, new_folder, sweep, write_whole
from .digests import find_shared_digest, hash_bytes, hash_file, hash_json
from .missing import describe_missing, require_file
from .pictures import decode_picture, list_pictures, open_picture, read_in_pieces, read_pictures, stack_pictures
from .relative import find_relative
from .structured import naming, parse_json, parse_toml_value, read_bytes, read_json, read_parquet, read_toml, refusing
from .tensors import read_tensors, write_tensors
from .text import decode, read_text, read_words
from .versioned import read_versioned
from .writable import check_file, check_folder, check_request, check_room

__all__ = [
    "check_file",
    "check_folder",
    "check_request",
    "check_room",
    "decode",
    "decode_picture",
    "describe_missing",
    "find_relative",
    "find_shared_digest",
    "hash_bytes",
    "hash_file",
    "hash_json",
    "list_pictures",
    "make_scratch",
    "naming",
    "new_file",
    "new_folder",
    "open_picture",
    "parse_json",
    "parse_toml_value",
    "read_bytes",
    "read_in_pieces",
    "read_json",
    "read_parquet",
    "read_pictures",
    "read_tensors",
    "read_text",
    "read_toml",
    "read_versioned",
    "read_words",
    "refusing",
    "require_file",
    "stack_pictures",
    "sweep",
    "write_tensors",
    "write_whole",
]
