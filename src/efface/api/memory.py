"""Says what needs less memory where a GPU's memory ran out, because torch's own text speaks of its allocator.

Such an error is recognised by the name of its class, because torch is not imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

ARGUMENTS = {
    "erase": "micro_batch=1 and moments=8 of efface.erase, and checkpointing=True, draw_batch=1, ",
    "attack": "max_memory of efface.attack with fewer GB than there are, and ",
    "draw": "fewer prompts at once, and ",
}
"""Arguments of a function that reduce memory, beside those that `efface.load` has for all."""
ARGUMENTS_OF_MODEL = 'dtype="bf16" (or "fp16") and offload=True of efface.load'
FLAGS = {
    "erase": "--micro-batch 1, --checkpointing, --draw-batch 1, --moments 8, ",
    "attack": "--max-memory with fewer GB than there are, ",
    "draw": "fewer --prompt at once, ",
}
"""Flags of a command that reduce memory, beside those that all commands with a model have."""
FLAGS_OF_MODEL = "--dtype bf16 (or fp16) and --offload"


def with_memory_advice(work: Callable[P, R]) -> Callable[P, R]:
    """Makes a function raise an error that names arguments which need less memory, where a GPU's memory ran out; its
    class stays torch.OutOfMemoryError."""

    @wraps(work)
    def advised(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return work(*args, **kwargs)
        except RuntimeError as error:
            if (explained := _explain(error, ARGUMENTS.get(work.__name__, "") + ARGUMENTS_OF_MODEL)) is error:
                raise
            raise explained from _find_first(error)

    return advised


def explain_to_command(command: str, error: Exception) -> Exception:
    """Returns the error; where a GPU's memory ran out, one that names the command's flags that need less memory."""
    return _explain(error, FLAGS.get(command, "") + FLAGS_OF_MODEL)


def _explain(error: Exception, less: str) -> Exception:
    if type(error).__name__ != "OutOfMemoryError":
        return error
    said = str(_find_first(error)).partition(". ")[0]
    return type(error)(f"memory ran out: {said}; {less} take less")


def _find_first(error: Exception) -> BaseException:
    """Torch's own error, which one that a function inside has explained already was raised from."""
    cause = error.__cause__
    return cause if cause is not None and type(cause) is type(error) else error
