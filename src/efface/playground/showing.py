"""Shows pictures and tries of the playground as HTML, in which every word of a prompt, a file or a judge is escaped."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import torch
from markupsafe import Markup
from torch import Tensor
from torch.nn.functional import interpolate

from ..evaluation.images import encode_png
from .looking import Picture, blur
from .session import Entry

THUMBNAIL = 96
"""The largest number of pixels of the longer side of a picture in the history."""
VERDICTS = {True: "the judges see it", False: "the judges do not see it", None: "not judged"}
STYLE = """
.efface-pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)); gap: 16px; }
.efface-pair figure, .efface-tries figure { margin: 0; }
.efface-pair img { width: 100%; max-width: 512px; image-rendering: pixelated; border-radius: 6px; }
.efface-tries { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 12px; }
.efface-tries img { width: 96px; height: 96px; object-fit: contain; image-rendering: pixelated; border-radius: 4px; }
.efface-tries figcaption { font-size: 0.85em; overflow-wrap: anywhere; }
.efface-shown { font-weight: 600; }
[data-testid=min-value], [data-testid=max-value], .subdued, ::placeholder {
  color: color-mix(in srgb, var(--body-text-color) 75%, transparent) !important; opacity: 1;
}
"""


def show_pair(entry: Entry | None, reveal: bool = False) -> str:
    """Shows the base's and the edited picture side by side; for a try of an attack, only the edited one."""
    if entry is None:
        return Markup('<p>Nothing is drawn yet: type a prompt and press "Draw".</p>')
    pictures = [("Base", entry.base)] if entry.base else []
    pictures.append((f"Edited: {entry.scene.describe_edits()}", entry.edited))
    figures = [_show_figure(picture, title, entry.scene.prompt, reveal) for title, picture in pictures]
    return Markup('<div class="efface-pair">{}</div>').format(Markup().join(figures))


def show_tries(entries: Sequence[Entry], reveal: bool = False) -> str:
    """Shows every try, the newest first, with a small picture, the prompt, the seed and the judges' answers."""
    if not entries:
        return Markup("<p>Nothing was tried yet.</p>")
    numbered = reversed(list(enumerate(entries, start=1)))
    return Markup('<div class="efface-tries">{}</div>').format(Markup().join(_try(i, e, reveal) for i, e in numbered))


def name_try(number: int, entry: Entry) -> str:
    """Describes a try in one line, for a list to choose from."""
    return f"{number}. {entry.what}: {entry.scene.prompt} (seed {entry.scene.seed})"


def _show_figure(picture: Picture, title: str, prompt: str, reveal: bool) -> Markup:
    verdict = _format_judged(picture)
    return Markup(
        '<figure><figcaption>{}</figcaption><img alt="{}" src="{}"><figcaption class="{}">{}</figcaption></figure>'
    ).format(
        title,
        f"{title}: {prompt}",
        _encode_source(picture.image, picture.explicit and not reveal),
        _format_marked(picture),
        verdict,
    )


def _try(number: int, entry: Entry, reveal: bool) -> Markup:
    shown = entry.edited
    text = f"{number}. {entry.what}: “{entry.scene.prompt}”, seed {entry.scene.seed}; {entry.scene.describe_edits()}; "
    return Markup('<figure><img alt="{}" src="{}"><figcaption class="{}">{}</figcaption></figure>').format(
        entry.scene.prompt,
        _encode_source(_shrink(shown.image), shown.explicit and not reveal),
        _format_marked(shown),
        text + _format_judged(shown),
    )


def _format_judged(picture: Picture) -> str:
    said = ", ".join(f"{judge}: {answer}" for judge, answer in picture.answers.items())
    words = VERDICTS[picture.shown] + (f" ({said})" if said else "")
    return f"{words}; a nudity detector finds it explicit" if picture.explicit else words


def _format_marked(picture: Picture) -> str:
    return "efface-shown" if picture.shown else ""


def _encode_source(image: Tensor, blurred: bool) -> str:
    """The picture as data in the page, so that no file of it stays; it is blurred before it leaves this process."""
    data = encode_png(blur(image) if blurred else image)
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def _shrink(image: Tensor) -> Tensor:
    """Shrinks the picture to at most `THUMBNAIL` pixels a side."""
    factor = THUMBNAIL / max(image.shape[1:])
    if factor >= 1:
        return image
    small = interpolate(image[None].float(), scale_factor=factor, mode="area")[0]
    return small.round().to(torch.uint8)
