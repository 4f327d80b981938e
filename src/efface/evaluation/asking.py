"""Calls of scorers, each with a time limit and with a message on the terminal while it takes long."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar, final

T = TypeVar("T")
TIMEOUT = 600.0
"""Seconds that a call of a scorer may take; most take less than a minute, the loading of a network included."""
HEARTBEAT = 10.0
"""Seconds of silence after which the terminal says which scorer is being waited for."""
HANGS = 3
"""Calls of a scorer over the limit, after which it is not asked again: each leaves a thread at work."""
OnWait = Callable[[str, int, int], None]
"""Called with what is waited for, the seconds that have passed, and the limit."""


def check_timeout(seconds: float) -> float:
    """The time limit of a scorer's call; ValueError where it is no positive number of seconds."""
    if not 0 < seconds < float("inf"):
        raise ValueError(f"the time limit of scorers is {seconds:g} s; a number of seconds above 0 would have worked")
    return seconds


class ScorerHung(TimeoutError):
    """A scorer did not answer in time."""


@final
class ScorerWatch:
    """Calls scorers, each call in a thread of its own that is left behind where it takes too long.

    Args:
        limit: seconds that a call may take.
        on_wait: called every few seconds while a call takes long.

    Raises:
        ValueError: a limit that is no positive number.
    """

    def __init__(self, limit: float = TIMEOUT, on_wait: OnWait | None = None) -> None:
        self.limit = check_timeout(limit)
        self.on_wait = on_wait
        self._hung: Counter[str] = Counter()

    def call(self, scorer: str, work: Callable[[], T]) -> T:
        """What `work` returns, or raises.

        Args:
            scorer: the name of the scorer that works.

        Raises:
            ScorerHung: it took longer than the limit, or has done so HANGS times before and is not asked again.
        """
        if self._hung[scorer] >= HANGS:
            raise ScorerHung(f"not asked again, for it hung {HANGS} times (over {self.limit:g} s, --scorer-timeout)")
        answer: dict[str, Any] = {}

        def run() -> None:
            try:
                answer["value"] = work()
            except BaseException as error:
                answer["error"] = error

        thread = threading.Thread(target=run, name=f"scorer {scorer}", daemon=True)
        thread.start()
        self._wait(thread, scorer)
        if "error" in answer:
            raise answer["error"]
        if "value" not in answer:
            self._hung[scorer] += 1
            raise ScorerHung(f"no answer within {self.limit:g} s (--scorer-timeout)")
        return answer["value"]

    def _wait(self, thread: threading.Thread, scorer: str) -> None:
        """Returns once the thread has ended, or the limit has passed; says now and then what is waited for."""
        began = time.monotonic()
        while thread.is_alive() and (passed := time.monotonic() - began) < self.limit:
            thread.join(min(HEARTBEAT, self.limit - passed))
            passed = time.monotonic() - began
            if self.on_wait and thread.is_alive() and passed < self.limit:
                self.on_wait(f"waiting for {scorer}, seconds", round(passed), round(self.limit))
