"""`efface play`: a page in the browser on which edits are tried."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import tyro

from ..playground.serving import HOST, PORT, is_loopback, play
from .console import print_result, warn
from .loading import Loading


@dataclass(frozen=True, kw_only=True)
class Play:
    """Open a page in the browser: draw with and without edits side by side, and try to break them.

    The page is served to this machine alone, needs no network, and ends with Ctrl-C. Explicit pictures are blurred
    where a nudity detector is installed. It needs the extra `play`.
    """

    kept: ClassVar[str] = "the page is closed; no prompt and no picture was written to disk"
    example: ClassVar[str] = "efface play --model glyphs --edit cat.safetensors"
    model: str = "glyphs"
    """A name (`efface list models`), a diffusers folder, a file FILE.safetensors@FOLDER, or a hub id; the page can
    choose another."""
    edit: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """An edit to begin with; repeat the flag for several. The page can name others."""
    host: str = HOST
    """Address to listen on. If other machines can reach it, the page uses only the model and the edits named here."""
    port: int = PORT
    """Port to listen on."""
    json: bool = False
    """Print the page's address as JSON."""
    loading: Loading = field(default_factory=Loading)

    def run(self) -> None:
        if not is_loopback(self.host):
            warn(f"whoever reaches {self.host} can use this page; without --host only this machine can")
        own = {f.name: f.default for f in dataclasses.fields(Loading)}
        options = {name: value for name, value in vars(self.loading).items() if value != own[name]}
        play(
            self.model,
            self.edit,
            host=self.host,
            port=self.port,
            on_ready=lambda url: print_result({"url": url}, self.json, f"{url}\nCtrl-C ends it."),
            **options,
        )
