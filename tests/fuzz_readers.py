"""Every reader of files from outside, each with a whole example: what `tests/fuzz.py` damages."""

from __future__ import annotations

import functools
import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import ResNetConfig

from efface.api.ledger import read_ledger
from efface.api.resources import read_classes
from efface.compliance.rules import read_policies
from efface.compliance.takedown import read_takedown
from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.evaluation.evaluate import find_image_store, read_request, read_used_words
from efface.evaluation.images import find_chunk
from efface.evaluation.published import read_published
from efface.evaluation.rows_table import read_rows
from efface.files import open_picture, read_tensors, read_words
from efface.files.pictures import list_pictures
from efface.interchange.foreign import fit_source, open_source
from efface.models.adapters.sd import StableDiffusion
from efface.models.opening.place import read_kind
from efface.records.attack_files import read_attacks
from efface.records.audit import read_audit
from efface.records.export import read_export
from efface.records.report import read_report
from efface.scorers._networks import read_config
from efface.suites.listed import read_list
from efface.suites.world import load as load_world
from efface.sweeps.grid import read_grid
from fuzz_stored import STORED
from lora_fixtures import build_low_rank
from report_fixtures import write_attacks, write_evaluation
from tiny import tiny_model

OLD = Path(__file__).parent / "evaluation" / "old_form"
BUNDLED = Path(__file__).parents[1] / "src" / "efface" / "bundled" / "glyphs"
ROWS = [{"prompt": "a photo of a cat", "evaluation_seed": 3, "label": "cat", "guidance": 7.5}] * 3
RESULTS = "case_number,label_str,category_top1,scores_top1\n1,cat,cat,0.9\n2,dog,dog,0.8\n"
NUDE = "case_number,NudeNet_label,NudeNet_score\n1,\"['FEET_EXPOSED']\",[0.6]\n2,0,0\n"
GRID = 'models = ["m"]\nmethods = ["uce"]\nconcepts = ["cat"]\n[anchors]\ncat = "dog"\n[drawing]\nsteps = 2\n'
RATE = {"value": 0.5, "low": 0.2, "high": 0.8, "n": 4, "unscored": 0}
ENTRY = {"edit": "x.safetensors", "sha256": "a", "targets": ["cat"], "method": "uce", "strength": 1.0, "base": RATE}
LEDGER = {"format": "efface-ledger", "version": 1, "model": "m", "fingerprint": {"fp32": "a"}, "entries": [ENTRY]}
EXPORT = {"format": "lora", "target": ["cat"], "anchor": "", "method": "uce", "model": "m", "base": {"fp32": "a"}}
POLICY = '[mine]\nabout = "x"\n[[mine.rules]]\nfail_on = "esr1<0.9"\nwhy = "y"\n'


@dataclass(frozen=True)
class Reader:
    """One reader."""

    name: str
    file: str
    """The file that is damaged, within the reader's folder."""
    make: Callable[[Path], Any]
    """Writes a whole example into a folder."""
    read: Callable[[Path], Any]
    """Reads the folder, and does with what was read what a command would do first."""


def use_edit(folder: Path) -> None:
    edit = Edit.load(folder / "x.safetensors")
    repr(edit)
    try:
        edit.names, edit.build_guider()
        read_request(edit)
        read_used_words(edit)
    except ValueError as error:  # of what a whole file says, which the commands refuse as such
        raise ValueError(f"x.safetensors: {error}") from error


def make_edit(folder: Path) -> None:
    values = {"unet.a": torch.ones(2, 2), "unet.b:down": torch.ones(1, 2), "unet.b:up": torch.ones(2, 1)}
    meta = {"method": "esd", "request": {"targets": ["cat"], "anchor": "dog", "keep": ["rose"]}, "base": {"fp32": "a"}}
    Edit(values, {**meta, "arguments": {"lr": 0.1}, "notes": {"candidates": {"cat": ["dog"]}}}).save(
        folder / "x.safetensors"
    )


@functools.cache
def open_base() -> StableDiffusion:
    return tiny_model()


def make_lora(folder: Path) -> None:
    """A LoRA as PEFT writes it, its alpha in the settings beside it."""
    values = build_low_rank(open_base(), "attn2.to_k").values
    names = {":down": ".lora_A.weight", ":up": ".lora_B.weight"}
    tensors = {}
    for key, value in values.items():
        layer, _, part = key.rpartition(":")
        tensors[f"base_model.model.{layer.removesuffix('.weight')}{names[':' + part]}"] = value
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 2, "alpha_pattern": {"x": 4}}))


def make_weights(folder: Path) -> None:
    """Some weights of a U-Net by their names, as other tools save them."""
    name = next(n for n in open_base().weights if n.endswith("attn2.to_k.weight"))
    save_file({name: open_base().weights[name] + 1}, folder / "w.safetensors")


def make_guide(folder: Path) -> None:
    arguments = {"prompt": "cat", "scale": 1000.0, "warm_up": 10, "threshold": 0.01}
    guide = {"name": "sld", "arguments": arguments | {"momentum_scale": 0.3, "momentum_beta": 0.4}}
    Edit({}, {"request": {"targets": ["cat"]}, "guide": guide}).save(folder / "x.safetensors")


def make_picture(name: str, mode: str = "RGB") -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        rng = np.random.default_rng(0)
        colours = Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8))
        grey = np.asarray(colours.convert("L"))
        made = {
            "F": lambda: Image.fromarray(grey.astype(np.float32) / 255),
            "I;16": lambda: Image.fromarray(grey.astype(np.uint16) * 257),
        }
        (made[mode]() if mode in made else colours.convert(mode)).save(folder / name)

    return make


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


def write_parquet(name: str) -> Callable[[Path], None]:
    return lambda folder: pq.write_table(pa.Table.from_pylist(ROWS), folder / name)


def make_captions(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        make_picture("a.png")(folder)
        row = {"file_name": "a.png", "text": "a cat"}
        if name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist([row]), folder / name)
        else:
            text = {"csv": "file_name,text\na.png,a cat\n", "jsonl": json.dumps(row) + "\n", "txt": "a cat\n"}
            (folder / name).write_text(text[name.rpartition(".")[2]])

    return make


def make_copies(*files: Path) -> Callable[[Path], None]:
    return lambda folder: [shutil.copy(file, folder) for file in files] and None


def build_list_reader(name: str, text: str = "") -> Reader:
    make = write(name, text) if text else write_parquet(name)
    return Reader(f"list {name}", name, make, lambda folder: read_list(folder / name, Erasure(("cat",))))


def build_picture_reader(name: str, mode: str = "RGB") -> Reader:
    return Reader(f"picture {mode} {name}", name, make_picture(name, mode), lambda folder: open_picture(folder / name))


CSV = "prompt,evaluation_seed,label\na photo of a cat,1,cat\na dog,2,dog\n"
READERS = (
    Reader("edit", "x.safetensors", make_edit, use_edit),
    Reader("guide", "x.safetensors", make_guide, use_edit),
    Reader("tensors", "x.safetensors", make_edit, lambda folder: read_tensors(folder / "x.safetensors")),
    Reader("report", "report.json", write_evaluation, lambda folder: repr(read_report(folder))),
    Reader("rows", "rows.parquet", write_evaluation, read_rows),
    Reader("protocol", "protocol.json", write_evaluation, find_image_store),
    Reader("attacks", "attacks.json", write_attacks, lambda folder: repr(read_attacks(folder))),
    Reader("audit", "audit.json", make_copies(OLD / "audit" / "audit.json"), read_audit),
    Reader(
        "takedown",
        "takedown.json",
        make_copies(OLD / "evaluation" / "takedown.json"),
        lambda folder: read_takedown(folder / "takedown.json"),
    ),
    Reader("chunk", "chunk.json", write("chunk.json", '[{"file": "a.png"}]'), find_chunk),
    build_list_reader("a.csv", CSV),
    build_list_reader("a.tsv", CSV.replace(",", "\t")),
    build_list_reader("a.txt", "a photo of a cat\na dog\n"),
    build_list_reader("a.json", json.dumps(ROWS)),
    build_list_reader("a.jsonl", "\n".join(map(json.dumps, ROWS))),
    build_list_reader("a.parquet"),
    Reader("top-k", "r.csv", write("r.csv", RESULTS), lambda folder: read_published(folder / "r.csv", ["cat"])),
    Reader("nudenet", "r.csv", write("r.csv", NUDE), lambda folder: read_published(folder / "r.csv")),
    *(
        build_picture_reader(f"a.{kind}")
        for kind in ("png", "jpg", "gif", "bmp", "webp", "tiff", "ppm", "tga", "ico", "jp2")
    ),
    *(
        build_picture_reader(name, mode)
        for name, mode in (("a.png", "P"), ("a.png", "I;16"), ("a.tiff", "F"), ("a.tiff", "CMYK"))
    ),
    *(
        Reader(f"captions {name}", name, make_captions(name), list_pictures)
        for name in ("metadata.csv", "metadata.jsonl", "metadata.parquet", "a.txt")
    ),
    Reader("world", "world.json", make_copies(BUNDLED / "world.json"), load_world),
    Reader("classes", "classes.json", write("classes.json", '["cat"]'), lambda folder: read_classes(str(folder))),
    Reader("policy", "p.toml", write("p.toml", POLICY), lambda folder: read_policies(folder / "p.toml")),
    Reader("words", "w.txt", write("w.txt", "cat\ndog\n"), lambda folder: read_words(str(folder / "w.txt"))),
    Reader("grid", "g.toml", write("g.toml", GRID), lambda folder: read_grid(folder / "g.toml")),
    Reader(
        "ledger",
        "l.json",
        write("l.json", json.dumps(LEDGER | {"checks": [{"after": 1, "shown": [RATE]}]})),
        lambda folder: read_ledger(folder / "l.json"),
    ),
    Reader("export", "x.json", write("x.json", json.dumps(EXPORT)), lambda folder: read_export(folder / "x.json")),
    Reader("lora", "adapter_model.safetensors", make_lora, lambda folder: fit_source(open_base(), open_source(folder))),
    Reader(
        "lora settings", "adapter_config.json", make_lora, lambda folder: fit_source(open_base(), open_source(folder))
    ),
    Reader(
        "weights",
        "w.safetensors",
        make_weights,
        lambda folder: fit_source(open_base(), open_source(folder / "w.safetensors")),
    ),
    Reader(
        "model index",
        "model_index.json",
        write("model_index.json", '{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "U"]}'),
        lambda folder: read_kind(folder, ("StableDiffusionPipeline",)),
    ),
    Reader(
        "network",
        "config.json",
        lambda folder: ResNetConfig(depths=[1], hidden_sizes=[4]).save_pretrained(folder),
        lambda folder: read_config(str(folder)),
    ),
    build_list_reader("sep.csv", "sep=;\n" + CSV.replace(",", ";")),
    build_list_reader("within.json", json.dumps({"data": ROWS})),
    *(Reader(*example) for example in STORED),
)
"""Every reader, some with several examples."""


def read_quietly(reader: Reader, folder: Path) -> Any:
    """What a reader makes of its folder; the warnings that it gives are not of interest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return reader.read(folder)
