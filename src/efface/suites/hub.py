"""Fetches files of the hub at run time: from the local cache, or else from a hub that answers at once."""

from pathlib import Path

from ..files.hub import TIMEOUT, require_answer


def fetch(repository: str, file: str, revision: str) -> Path:
    """Fetches a file of a data set on the hub.

    Raises:
        OSError: the hub can't be reached, or does not have the file; the message says what to do instead.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        found = hf_hub_download(repository, file, repo_type="dataset", revision=revision, local_files_only=True)
        return Path(found)
    except LocalEntryNotFoundError:
        pass
    instead = f"fetch {file} of {repository} by hand, and give its path as the suite"
    try:
        require_answer()
        found = hf_hub_download(repository, file, repo_type="dataset", revision=revision, etag_timeout=TIMEOUT)
    except (OSError, HfHubHTTPError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OSError(f"the hub gave no {file} of {repository} ({said}); {instead}") from error
    return Path(found)
