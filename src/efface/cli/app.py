"""The command line: each command is a file with a dataclass whose fields are the command's flags.

Nothing here imports torch before a command needs it, so that `--help` and `list` answer at once; for the same reason
only the flags of the named command are built.
"""

import inspect
import os
import sys
import textwrap
import warnings
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import tyro

from .. import __version__
from ..api.memory import explain_to_command
from ..catalog import did_you_mean
from ..files import require_file
from .attack import AttackCommand
from .audit import AuditCommand
from .combining import Diff, Merge, Revert
from .completion import Completion
from .console import complain, quieten
from .demo import Demo
from .doctor import Doctor
from .draw import Draw
from .erase import Erase, parse
from .evaluate import Evaluate
from .export import Export
from .importing import Import
from .ledger import Ledger
from .listing import List
from .neurons import Neurons
from .play import Play
from .purify import Purify
from .push import Push
from .record import TakedownRecord
from .report import Report
from .suite import SuiteCommand
from .sweep import Sweep
from .takedown import TakedownCommand
from .verify import Verify

GROUPS = {
    "From a request to an answer": {"takedown": TakedownCommand, "suite": SuiteCommand},
    "Step by step": {
        "erase": Erase,
        "draw": Draw,
        "evaluate": Evaluate,
        "attack": AttackCommand,
        "audit": AuditCommand,
    },
    "To hand on": {"report": Report, "verify": Verify, "record": TakedownRecord},
    "Files of edits and of other tools": {
        "export": Export,
        "import": Import,
        "merge": Merge,
        "revert": Revert,
        "ledger": Ledger,
    },
    "To publish": {"push": Push},
    "To look closer": {"play": Play, "diff": Diff, "purify": Purify, "neurons": Neurons},
    "Many at once": {"sweep": Sweep},
    "To begin with": {"demo": Demo, "list": List, "doctor": Doctor, "completion": Completion},
}
"""The commands, as `efface --help` groups them."""
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}
ABOUT = "Removes concepts from text-to-image diffusion models, shows that they are gone, and what else changed."
STYLE = (tyro.conf.OmitArgPrefixes,)
WIDTH = 80
"""Columns of a terminal."""
PATHS = ("--out", "--edit", "--image", "--images", "--store", "--checkpoint", "--track-dir", "--import", "--sign")
"""Flags whose value is the path of a file or folder."""
INPUTS = ("edit", "edits", "image", "grid", "vocabulary")
"""Fields of commands that name a file to read; those that may also name a folder or a model are not among them."""
BROKEN_PIPE = 141
"""The exit code that a shell reports for a command whose output is no longer read."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit code: 0 where the command worked, 1 where its work failed, 2 where its arguments ask for something
        that can't be done, 130 where it was stopped. `verify`, `record` and `takedown` have codes of their own.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _answer(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `efface list methods | head`: nobody reads on, and that is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _answer(args: list[str]) -> int:
    if args[:1] == ["help"]:
        args = [*args[1:], "--help"]
    if args[:1] in ([], ["-h"], ["--help"], ["--version"], ["version"]):
        print(f"efface {__version__}" if args[:1] in (["--version"], ["version"]) else describe_usage())
        return 0 if args else 2
    with warnings.catch_warnings():
        quieten()
        try:
            return _run(args[0], args[1:])
        except BrokenPipeError:
            raise
        except (ValueError, TypeError, OSError) as error:
            return complain(error, 2)
        except (ArithmeticError, RuntimeError) as error:
            return complain(explain_to_command(args[0], error), 1)
        except KeyboardInterrupt:
            kept = getattr(COMMANDS.get(args[0]), "kept", "nothing was kept")
            return complain(KeyboardInterrupt(f"stopped; {kept}"), 130)


def _run(name: str, args: Sequence[str]) -> int:
    """Runs the command, and returns its own exit code, or 0 where it has none."""
    if name not in COMMANDS:
        raise ValueError(f"there is no command {name!r}{did_you_mean(name, tuple(COMMANDS))}")
    refuse_empty_paths(args)
    if name == "erase" and args and not args[0].startswith("-"):
        parse(args[0], args[1:], STYLE)()
        return 0
    command = COMMANDS[name]
    about = f"{inspect.cleandoc(command.__doc__ or '')}\n\nExample:\n  {command.example}"
    given = tyro.cli(command, prog=f"efface {name}", description=about, args=list(args), config=STYLE)
    require_inputs(given)
    return given.run() or 0


def require_inputs(command: object) -> None:
    """Raises FileNotFoundError for a file to read that is not there, before torch is imported or a model opened."""
    for name in INPUTS:
        given = getattr(command, name, None)
        for path in given if isinstance(given, tuple) else (given,):
            if isinstance(path, Path):
                require_file(path)


def refuse_empty_paths(args: Sequence[str]) -> None:
    """Raises ValueError for a flag of a path with an empty value, which a shell gives for a variable that is not set:
    it would mean the current folder.
    """
    for flag, value in zip_longest(args, args[1:], fillvalue="none"):
        named, _, joined = flag.partition("=")
        if named in PATHS and (joined == "" if "=" in flag else value == ""):
            raise ValueError(f"{named} is empty; give a path (is a variable of the shell not set?)")


def describe_usage() -> str:
    """Returns the text that `efface --help` prints."""
    lines = ["usage: efface COMMAND [flags]", "", *textwrap.wrap(ABOUT, WIDTH)]
    for title, group in GROUPS.items():
        lines += ["", f"{title}:"]
        for name, command in group.items():
            about = " ".join((command.__doc__ or "").partition("\n\n")[0].split())
            lines += textwrap.wrap(about, WIDTH, initial_indent=f"  {name:<11}", subsequent_indent=" " * 13)
    lines += ["", "efface COMMAND --help, or efface help COMMAND, explains a command, with an"]
    return "\n".join([*lines, "example. efface version tells the version."])
