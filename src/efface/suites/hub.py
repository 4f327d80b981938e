"""Fetches files of the hub at run time: from the local cache, or else from a hub that answers at once."""

from pathlib import Path

TIMEOUT = 5.0
"""Seconds after which a hub that does not answer counts as unreachable."""


def fetch(repository: str, file: str, revision: str) -> Path:
    """Fetches a file of a data set on the hub.

    Raises:
        OSError: the hub can't be reached, or does not have the file; the message says what to do instead.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        found = hf_hub_download(repository, file, repo_type="dataset", revision=revision, local_files_only=True)
        return Path(found)
    except LocalEntryNotFoundError:
        pass
    instead = f"fetch {file} of {repository} by hand, and give its path as the suite"
    try:
        if constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        require_answer(constants.ENDPOINT)
        found = hf_hub_download(repository, file, repo_type="dataset", revision=revision, etag_timeout=TIMEOUT)
    except (OSError, HfHubHTTPError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OSError(f"the hub gave no {file} of {repository} ({said}); {instead}") from error
    return Path(found)


def require_answer(endpoint: str, timeout: float = TIMEOUT) -> None:
    """Raises OSError unless the hub answers soon; its own client would try for half a minute."""
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=timeout):
            pass
    except urllib.error.HTTPError:
        pass
    except urllib.error.URLError as error:
        raise OSError(f"{endpoint} does not answer: {error.reason}") from error
