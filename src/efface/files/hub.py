"""Whether the Hugging Face hub answers: its client would try for half a minute, or for ever, where it does not."""

from __future__ import annotations

TIMEOUT = 5.0
"""Seconds after which a hub that does not answer counts as unreachable."""


def require_answer(endpoint: str = "", timeout: float = TIMEOUT) -> None:
    """Asks the hub once, by its client's own connection, with the user's proxies and certificates.

    Args:
        endpoint: the address of a hub; "" for the one that huggingface_hub is set to.
        timeout: seconds to wait for each part of the answer.

    Raises:
        OSError: it does not answer, or HF_HUB_OFFLINE is set; the message is one line.
    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    where = endpoint or constants.ENDPOINT
    try:
        get_session().head(where, timeout=timeout)
    except Exception as error:  # the errors of the client's versions have no common class
        said = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise OSError(f"{where} does not answer: {said}") from error


def has_answer() -> bool:
    """Whether the hub answers; if not, only what its cache holds can be opened."""
    try:
        require_answer()
    except OSError:
        return False
    return True


def is_cached(repository: str, file: str) -> bool:
    """Whether the hub's cache has this file of a repository."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repository, file), str)


def require_source(repository: str, file: str) -> None:
    """Raises ValueError where a file of a repository is not in the hub's cache, and the hub does not answer."""
    if is_cached(repository, file):
        return
    try:
        require_answer()
    except OSError as error:
        raise ValueError(f"the hub's cache has no such id, and the hub can't be asked ({error})") from error
