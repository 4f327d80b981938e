"""Fetches from the hub, or finds in its cache, the files that opening a model needs, and no others."""

from __future__ import annotations

from pathlib import Path

from ...files.hub import is_cached, require_answer
from .stored import INDEX, choose_weights, list_used


def fetch(name: str, variant: str = "") -> Path:
    """The folder in the hub's cache that holds a model's files; files that are not there yet are fetched.

    A hub that does not answer soon is not asked again; the model is then taken from the cache.

    Raises:
        ValueError: neither the hub nor its cache has such a model; the message is the reason, without the name.
    """
    try:
        return _fetch(name, variant)
    except Exception as error:  # the errors of the hub, its client and the network have no common class
        if _is_absent(error):
            raise ValueError("the hub has no model of this id, or none that you may read") from error
        raise ValueError(_take_first_line(error)) from error


def _fetch(name: str, variant: str) -> Path:
    import huggingface_hub

    try:
        require_answer()
        files = huggingface_hub.HfApi().list_repo_files(name)
    except Exception as error:
        if _is_absent(error) or not is_cached(name, INDEX):
            raise
        return Path(huggingface_hub.snapshot_download(name, local_files_only=True))
    if INDEX not in files:
        raise ValueError(f"what the hub has under this id is no diffusers pipeline, for it has no {INDEX}")
    index = Path(huggingface_hub.hf_hub_download(name, INDEX))
    return Path(huggingface_hub.snapshot_download(name, allow_patterns=_list_wanted(name, index, files, variant)))


def _is_absent(error: Exception) -> bool:
    """Whether the hub answered that it has no such model, or none for this user."""
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    return isinstance(error, RepositoryNotFoundError | HFValidationError)


def _list_wanted(name: str, index: Path, files: list[str], variant: str) -> list[str]:
    """The files to fetch: for each part that is used, its configuration and the weights that will be opened."""
    wanted = [INDEX, "classes.json"]
    for part in list_used(index.parent, index):
        inside = [file.removeprefix(f"{part}/") for file in files if file.startswith(f"{part}/")]
        weights = choose_weights(inside, f"{name}/{part}", variant)
        wanted += [
            f"{part}/{file}" for file in inside if not file.endswith((".safetensors", ".bin", ".msgpack", ".h5"))
        ]
        if weights is not None:
            wanted += [f"{part}/{pattern}" for pattern in weights.patterns]
    return wanted


def _take_first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
