"""`efface push`: an export or an edit to a repository of the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tyro

from .console import print_result


@dataclass(frozen=True)
class Push:
    """Upload an export or an edit to a model repository of the hub, with a generated model card. Without --send
    nothing is uploaded: the card and the names of the files are printed.
    """

    example: ClassVar[str] = "efface push cat-kohya.safetensors --to me/glyphs-without-cat --licence apache-2.0"
    source: tyro.conf.Positional[Path]
    """A folder or a file that `efface export` wrote, or an edit's file."""
    to: str
    """The repository, OWNER/NAME."""
    licence: str
    """Licence of the base, by the hub's name for it, such as openrail++."""
    evaluation: Path | None = None
    """Folder that `efface evaluate` wrote: its rates go into the card."""
    public: bool = False
    """Let everyone see a new repository; only its owner does by default."""
    existing: bool = False
    """Commit to a repository that exists already."""
    endpoint: str | None = None
    """Address of another hub than huggingface.co."""
    send: bool = False
    """Upload. The account is the one that `hf auth login` logged in."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        from ..api.pushing import push

        done = push(
            self.source,
            self.to,
            licence=self.licence,
            evaluation=self.evaluation,
            private=not self.public,
            existing=self.existing,
            endpoint=self.endpoint,
            send=self.send,
        )
        data = {"repository": done.repository, "files": list(done.files), "card": done.card, "url": done.url}
        sent = done.url or "nothing was uploaded; --send uploads it"
        print_result(data, self.json, "\n".join([done.card, *(f"  {name}" for name in done.files), sent]))
