"""`efface export`: an edit as other tools load it, checked with their own loaders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..interchange.formats import Format, find_exact
from ..plurals import write_count
from .console import print_result, say, warn

if TYPE_CHECKING:
    from ..api.exporting import Exported

LARGE = 0.2
"""A residual above this share of the change gives a warning."""
ROUNDED = 0.001
"""A share of the change above this is printed where it is lost because the weights are rounded."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write an edited model, or the edit alone as a LoRA, as other tools load it.

    Before the command reports success, the file is loaded by its reader (diffusers' from_pretrained, from_single_file
    or load_lora_weights), every changed weight is compared, and a few pictures are drawn beside the edit's.
    """

    example: ClassVar[str] = "efface export --model glyphs --edit cat.safetensors --out out/glyphs-without-cat"
    model: str
    """The base that the edit was made for."""
    edit: Path
    """The edit to apply."""
    out: Path
    """Folder to write, or file that ends in .safetensors; it must not exist yet."""
    format: Format | None = None
    """A diffusers folder; one file in the original layout of Stable Diffusion 1 to 3.5 or FLUX.1; or the edit alone as
    a LoRA: `lora` for diffusers and PEFT, `kohya` as most interfaces load it, `comfy` with kohya's names, in which
    dense changes are exact. By default a folder, or the one file where --out ends in .safetensors."""
    dtype: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Precision of the weights written."""
    strength: float = 1.0
    """Strength with which the edit is written."""
    rank: int | None = None
    """Rank of a LoRA's matrices where the edit is dense or a mask; a low-rank edit keeps its own."""
    energy: float | None = None
    """Instead of --rank: the share of each dense change's squared norm that must be kept, 0.99 by default."""
    pictures: int = 2
    """Number of pictures that are compared; 0 compares weights alone."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        from ..api.exporting import write_export

        made = write_export(
            self.model,
            self.edit,
            self.out,
            format=self.format,
            dtype=self.dtype,
            strength=self.strength,
            rank=self.rank,
            energy=self.energy,
            pictures=self.pictures,
        )
        tell_export(made)
        kind = "folder" if made.format == "diffusers" else "file"
        print_result({kind: str(self.out), **made.about}, self.json, str(self.out))


def tell_export(made: Exported) -> None:
    """Prints how much of the edit the file holds, and what its reader found in it."""
    about = made.about
    if "residual" in about:
        ranks = _write_ranks(about["lowest_rank"], about["rank"]) if about["rank"] else "exact differences"
        say(
            f"{ranks}; left out of the change: {about['residual']:.2%} in all, at most {about['worst_residual']:.2%} "
            f"of a matrix ({about['worst_weight']})"
        )
        if about["residual"] > LARGE:
            exact = find_exact(about["architecture"])
            all_of_it = "neither of them" if exact == made.format else f"--format {exact}"
            warn(f"much of the edit is left out; a higher --rank or --energy keeps more, {all_of_it} all")
        if lost := about["left_out"]:
            say(
                f"{write_count(len(lost), 'bias, norm or embedding has', 'biases, norms or embeddings have')} no "
                f"place in it, first {lost[0]}"
            )
    if (rounded := about.get("rounded_away", 0.0)) > ROUNDED:
        told = f"{rounded:.1%} of the edit's change is rounded away in {about['dtype']}"
        (warn if rounded > LARGE else say)(f"{told}; --dtype fp32 keeps all of it")
    say(f"read by {about['reader']}: {write_count(about['matched'], 'weight matches', 'weights match')}")
    _tell_use(about)
    if gap := about["gap"]:
        say(
            f"{write_count(gap['pictures'], 'picture differs', 'pictures differ')} from the edit's by "
            f"{gap['largest']:.0f} of 255 at most, by "
            f"{gap['mean']:.3f} on average; the edit itself changes pictures by {gap['edit']:.2f}"
        )


def _tell_use(about: Mapping[str, Any]) -> None:
    """Prints what diffusers has to be told so that the model draws as it was trained."""
    if about["format"] == "diffusers" and about["absent"]:
        absent = ", ".join(f"{part}=None" for part in about["absent"])
        say(f"the model lacks parts that from_pretrained expects: give it {absent}")
    if about["call"]:
        asked = ", ".join(f"{name}={value}" for name, value in about["call"].items())
        say(f"give the pipeline's call {asked}, with which the model was trained")


def _write_ranks(lowest: int, highest: int) -> str:
    return f"rank {highest}" if lowest == highest else f"rank {lowest} to {highest}"
