"""`efface.play`: checks its arguments, opens the model and serves the page on this machine."""

from __future__ import annotations

import errno
import importlib.util
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..api.case import to_tuple
from ..api.resources import LazyModel, open_later

if TYPE_CHECKING:
    from ..models.base import Model
    from .session import Playground

HOST, PORT = "127.0.0.1", 7860


def play(
    model: Model | LazyModel | str | Path = "glyphs",
    edits: str | Path | Sequence[str | Path] = (),
    *,
    host: str = HOST,
    port: int = PORT,
    on_ready: Callable[[str], None] | None = None,
    **options: Any,
) -> None:
    """Serves a page on which prompts are drawn by a model and with edits, until it is stopped (Ctrl-C).

    The page uses no network. It listens on the loopback address, so that nobody else can use it. With another `host` it
    accepts no model and no edit beyond those given here, because anybody who reaches it could otherwise open any file.

    Args:
        model: the first model: a name, folder or hub id, or the result of `efface.load`.
        edits: the file of the first edit, or of several.
        host: the address to listen on.
        port: the port to listen on.
        on_ready: called with the page's address when it can be opened.
        options: arguments of `efface.load`, for every model that is opened.

    Raises:
        ValueError: gradio is not installed, the port or address is impossible, a file is no edit, or an edit is of
            another model; this is raised before the page is served.
        OSError: the port is in use or not allowed, or a file is missing.
    """
    require_gradio()
    check_place(host, port)
    from ..edits.edit import Edit
    from ..models.loading import list_bundled
    from .session import Playground

    edits = to_tuple(edits)
    read = [Edit.load(file) for file in edits]
    opening = (
        open_later(model) if not isinstance(model, str | Path) else LazyModel(str(model), lambda: _load(model, options))
    )
    opened = opening.open()
    for edit in read:
        edit.check(opened)
    local = is_loopback(host)
    playground = Playground(
        load=lambda name: opened if name == opening.name else _load(name, options),
        models=tuple(dict.fromkeys((opening.name, *(list_bundled() if local else ())))),
        edits=tuple(map(str, edits)),
        only_these=not local,
        flags=options,
    )
    with serve(playground, host, port) as address:
        if on_ready:
            on_ready(address)
        wait_for_the_end()


def wait_for_the_end() -> None:
    """Waits until the process is interrupted."""
    threading.Event().wait()


@contextmanager
def serve(playground: Playground, host: str = HOST, port: int = PORT) -> Iterator[str]:
    """Serves the page inside the `with` block, and gives its address."""
    from .page import build_page, start_page

    page = build_page(playground)
    try:
        yield start_page(page, host, port)
    finally:
        page.close(verbose=False)


def require_gradio() -> None:
    """Raises ValueError, which says how to install it, where gradio is missing."""
    if importlib.util.find_spec("gradio") is None:
        raise ValueError("the playground needs gradio, which is not installed: pip install 'efface[play]'")


def check_place(host: str, port: int) -> None:
    """Refuses an address that can't be listened on.

    Raises:
        ValueError: the port is no number from 1 to 65535, or this machine does not have the address.
        OSError: the port is in use, or not allowed to this user.
    """
    if not 1 <= port <= 65535:
        raise ValueError(f"--port is a number from 1 to 65535, got {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                other = port + 1 if port < 65535 else port - 1
                raise OSError(f"port {port} is in use on {host}; choose another, for example --port {other}") from error
            if error.errno == errno.EACCES:
                raise OSError(f"port {port} is not allowed to this user; choose one from 1024 on") from error
            raise ValueError(
                f"this machine can't listen on {host!r} ({error}); --host takes an address of its own, such as {HOST}"
            ) from error


def is_loopback(host: str) -> bool:
    """Whether an address can be reached only from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _load(name: str | Path, options: dict[str, Any]) -> Model:
    from ..api.erasing import load

    return load(str(name), **options)
