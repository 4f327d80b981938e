"""Calls of scorers, each with a time limit and with a message on the terminal while it takes long."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar, final

T = TypeVar("T")
TIMEOUT = 600.0
"""Seconds that a call of a scorer may take; most take less than a minute, including the loading of a network."""
HEARTBEAT = 10.0
"""Seconds of silence after which the terminal says which scorer is being waited for."""
HANGS = 3
"""Number of a scorer's calls over the limit after which it is not called again; each leaves a thread running."""
OnWait = Callable[[str, int, int], None]
"""Is called with the thing that is waited for, the seconds that have passed, and the limit."""


def check_timeout(seconds: float) -> float:
    """Returns the time limit of a scorer's call; raises ValueError where it is no positive number of seconds."""
    if not 0 < seconds < float("inf"):
        raise ValueError(f"the time limit of scorers is {seconds:g} s; a number of seconds above 0 would have worked")
    return seconds


class ScorerHung(TimeoutError):
    """A scorer did not answer in time."""


@final
class ScorerWatch:
    """Calls scorers, each call in a thread of its own, which is abandoned if it takes too long.

    Args:
        limit: seconds that a call may take.
        on_wait: called every few seconds while a call takes long.

    Raises:
        ValueError: the limit is no positive number.
    """

    def __init__(self, limit: float = TIMEOUT, on_wait: OnWait | None = None) -> None:
        self.limit = check_timeout(limit)
        self.on_wait = on_wait
        self._hung: Counter[str] = Counter()

    def call(self, scorer: str, work: Callable[[], T]) -> T:
        """Calls `work`, and returns or raises what it does.

        Args:
            scorer: the name of the scorer.
            work: the call.

        Raises:
            ScorerHung: it took longer than the limit, or did so HANGS times before and is not called again.
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
        """Waits until the thread has ended or the limit has passed, and reports the waiting now and then."""
        began = time.monotonic()
        while thread.is_alive() and (passed := time.monotonic() - began) < self.limit:
            thread.join(min(HEARTBEAT, self.limit - passed))
            passed = time.monotonic() - began
            if self.on_wait and thread.is_alive() and passed < self.limit:
                self.on_wait(f"waiting for {scorer}, seconds", round(passed), round(self.limit))
