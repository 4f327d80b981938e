"""The playground's page: its components, and what their buttons call. This is the only file that uses gradio."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
from gradio.themes import Base
from markupsafe import escape

from .scene import Scene, read_scene
from .session import Entry, Playground, describe_outcome, list_attacks
from .showing import STYLE, name_try, show_pair, show_tries

SLOTS = 6
"""The number of edits that can be applied together, unless more are given at the start."""
KEPT = 60
"""The number of tries in the history, from which the oldest are dropped."""
BUTTONS = {"primary": ("#2563eb", "#1d4ed8"), "cancel": ("#b91c1c", "#991b1b")}
"""The colours of buttons that act and that stop, at rest and under the pointer; white text on them can be read."""
Update = Any
"""The new state of a component, as gradio takes it."""


def build_page(playground: Playground) -> gr.Blocks:
    """Builds the page without serving it."""
    with gr.Blocks(title="efface playground", analytics_enabled=False) as page:
        _Page(playground).lay_out()
    return page


def start_page(page: gr.Blocks, host: str, port: int) -> str:
    """Serves the page in threads of its own; returns its address."""
    page.queue(default_concurrency_limit=1)
    _, local, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        run_history=False,
        footer_links=[],
        theme=_build_theme(),
        css=STYLE,
    )
    return local


def _build_theme() -> Base:
    """Fonts of this machine, and the colours of `BUTTONS`: gradio's own theme draws the button that stops as any."""
    colours = {}
    for kind, (rest, pointed) in BUTTONS.items():
        for dark in ("", "_dark"):
            colours[f"button_{kind}_background_fill{dark}"] = rest
            colours[f"button_{kind}_background_fill_hover{dark}"] = pointed
            colours[f"button_{kind}_text_color{dark}"] = "white"
            colours[f"button_{kind}_text_color_hover{dark}"] = "white"
    return Base(font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")).set(**colours)


@contextmanager
def _show_errors() -> Iterator[None]:
    """Shows an error of the block on the page in its own words, until it is closed."""
    try:
        yield
    except (ValueError, TypeError, OSError, ArithmeticError, RuntimeError) as error:
        raise gr.Error(str(escape(error)), duration=None, print_exception=False) from error


class _Page:
    """The components of the page, and what their buttons do."""

    def __init__(self, playground: Playground) -> None:
        self.playground = playground
        given = len(playground.edits)
        self.slots = given if playground.only_these else max(SLOTS, given + 1)
        """Edits that the page has fields for."""
        self.begin = min(self.slots, given + 1)
        """Of them, those that are shown at first."""

    def lay_out(self) -> None:
        """Places all components, and connects the buttons with their functions."""
        play = self.playground
        self.history, self.open_slots = gr.State([]), gr.State(self.begin)
        gr.Markdown("# efface playground\nDraw a prompt without and with edits, and try to break them.")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                self._lay_out_model()
                self._lay_out_prompt()
                self._lay_out_attack()
            with gr.Column(scale=3, min_width=360):
                self.pair = gr.HTML(show_pair(None), label="Pictures")
                self.commands = gr.Code(
                    label="The same on the command line",
                    language=None,  # the colours of its shell commands stand out too little
                    lines=2,
                    interactive=False,
                    wrap_lines=True,
                    elem_id="commands",
                )
                self.reveal = gr.Checkbox(False, label="Show explicit pictures unblurred", visible=bool(play.detectors))
                if not play.detectors:
                    gr.Markdown(
                        'No nudity detector is installed, so nothing is blurred: `pip install "efface[detect,nsfw]"`.'
                    )
        gr.Markdown("## What was tried")
        self.outcome = gr.Markdown("", elem_id="outcome")
        self.again = gr.Dropdown([], label="Take up again", value=None, elem_id="again")
        self.tries = gr.HTML(show_tries([]))
        self._tie()

    def _lay_out_model(self) -> None:
        play = self.playground
        free = not play.only_these
        self.model = gr.Dropdown(
            list(play.models), value=play.models[0], label="Model", allow_custom_value=free, elem_id="model"
        )
        self.files, self.strengths = [], []
        given = list(play.edits)
        self.rows: list[gr.Row] = []
        for i in range(self.slots):
            file = given[i] if i < len(given) else None
            with gr.Row(visible=i < self.begin) as row:
                self.files.append(
                    gr.Dropdown(
                        ["", *given],
                        value=file or "",
                        label=f"Edit {i + 1} (a file)",
                        allow_custom_value=free,
                        scale=2,
                        elem_id=f"edit-{i + 1}",
                    )
                )
                self.strengths.append(
                    gr.Slider(-2.0, 2.0, value=1.0, step=0.05, label=f"Strength {i + 1}", elem_id=f"strength-{i + 1}")
                )
            self.rows.append(row)
        self.more = gr.Button("Another edit", size="sm", visible=self.begin < self.slots, elem_id="another")

    def _lay_out_prompt(self) -> None:
        self.prompt = gr.Textbox("a cat", label="Prompt", elem_id="prompt")
        with gr.Row():
            self.seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="seed")
            # Text fields, because gradio reads an empty number field as 0.
            self.steps = gr.Textbox("", label="Steps", placeholder="the model's own", elem_id="steps")
            self.guidance = gr.Textbox("", label="Guidance", placeholder="the model's own", elem_id="guidance")
        self.draw = gr.Button("Draw", variant="primary", elem_id="draw")

    def _lay_out_attack(self) -> None:
        gr.Markdown(
            "## Try to break it\nAsks for what was erased in other words or by other seeds, until the judges see it."
        )
        with gr.Group():
            self.attack = gr.Dropdown(list_attacks(), value=list_attacks()[-1], label="Attack", elem_id="attack")
            self.count = gr.Slider(1, 32, value=8, step=1, label="Tries", elem_id="count")
            self.concept = gr.Textbox("", label="Concept (empty: what the first edit erased)", elem_id="concept")
            self.names = gr.Textbox("", label="Other names of it, separated by commas", elem_id="names")
            with gr.Row():
                self.breaking = gr.Button("Try to break it", variant="primary", elem_id="break")
                self.stop = gr.Button("Stop", variant="stop", elem_id="stop")

    def _tie(self) -> None:
        scene = [self.model, self.prompt, self.seed, self.steps, self.guidance, *self.files, *self.strengths]
        common = [self.reveal, self.history, self.concept]
        shown = [self.pair, self.commands, self.tries, self.again, self.history, self.outcome]
        gr.on(
            [self.draw.click, self.prompt.submit],
            self._draw,
            [*common, *scene],
            shown,
            show_progress="minimal",
            show_progress_on=self.pair,
        )
        attack = [self.attack, self.count, self.names]
        going = self.breaking.click(
            self._attack, [*common, *attack, *scene], shown, show_progress="minimal", show_progress_on=self.pair
        )
        self.stop.click(None, cancels=[going])
        self.more.click(self._open_slot, self.open_slots, [self.open_slots, self.more, *self.rows])
        self.reveal.change(self._reveal, [self.reveal, self.history], [self.pair, self.tries])
        self.again.input(
            self._take_up, [self.again, self.reveal, self.history], [self.prompt, self.seed, self.pair, self.commands]
        )

    # The functions of the buttons.

    def _draw(self, reveal: bool, history: list[Entry], concept: str, *scene: Any) -> tuple[Update, ...]:
        with _show_errors():
            entry = self.playground.draw(self._read(*scene), concept.strip())
        return self._show([*history, entry], reveal, "")

    def _attack(
        self, reveal: bool, history: list[Entry], concept: str, name: str, count: float, names: str, *scene: Any
    ) -> Iterator[tuple[Update, ...]]:
        others = tuple(word.strip() for word in names.split(",") if word.strip())
        made: list[Entry] = []
        with _show_errors():
            for entry in self.playground.attack(self._read(*scene), name, concept.strip(), int(count), others):
                made.append(entry)
                yield self._show([*history, *made], reveal, f"{name}: try {len(made)} of at most {int(count)}")
        yield self._show([*history, *made], reveal, describe_outcome(name, made))

    def _show(self, history: list[Entry], reveal: bool, outcome: str) -> tuple[Update, ...]:
        kept = history[-KEPT:]
        choices = [(name_try(i, entry), i - 1) for i, entry in enumerate(kept, start=1)]
        again = gr.Dropdown(choices=choices, value=None)
        return show_pair(kept[-1], reveal), kept[-1].commands, show_tries(kept, reveal), again, kept, outcome

    def _open_slot(self, count: int) -> list[Update]:
        """Shows the fields of one more edit."""
        shown = min(count + 1, self.slots)
        rows = [gr.Row(visible=i < shown) for i in range(self.slots)]
        return [shown, gr.Button(visible=shown < self.slots), *rows]

    def _reveal(self, reveal: bool, history: list[Entry]) -> tuple[str, str]:
        return show_pair(history[-1] if history else None, reveal), show_tries(history, reveal)

    def _take_up(self, chosen: int | None, reveal: bool, history: list[Entry]) -> tuple[Update, ...]:
        if chosen is None:
            return (gr.skip(),) * 4
        entry = history[chosen]
        return entry.scene.prompt, entry.scene.seed, show_pair(entry, reveal), entry.commands

    def _read(self, model: str, prompt: str, seed: float, steps: str, guidance: str, *rest: Any) -> Scene:
        """Reads the scene from the fields."""
        files, strengths = rest[: self.slots], rest[self.slots :]
        return read_scene(model, prompt, seed, steps, guidance, list(zip(files, strengths, strict=True)))
