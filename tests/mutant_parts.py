"""The parts of the package that `tests/mutants.py` mutates by name, each with the tests that are run against it.

The tests of a part are those that fail for it soon: a figure counts what these notice, and others may notice more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Part:
    """Code that is mutated together, and the tests that are run against it."""

    files: Sequence[str]
    """Within src/efface; a folder stands for all of its files."""
    tests: Sequence[str]
    """Within tests."""


AXES = ("objectives", "preservation", "states", "balance", "updates")
OF_AXES = (
    *("objectives", "constrained", "lowrank", "mask", "pictures", "salient", "trajectories", "trajectory_cache"),
    *("vocabulary_search", "states", "terms", "term_limits", "attention", "saliency"),
)
OF_AXES_TOO = ("spm", "mace", "stereo", "advunlearn", "attack_in_the_loop", "ac", "abo")
METHODS = sorted((Path(__file__).parent.parent / "src" / "efface" / "methods").glob("*.py"))
LONG = ("answers", "compose", "mace", "stereo")
"""Methods that are a part of their own: their tests take longer than those of all others."""
OF_METHODS = (
    *("abo", "checks", "closed_form_base", "closed_form_methods", "closed_forms_on_flows", "configure", "hardened"),
    *("published_defaults", "refusals", "settings", "spm", "surgical"),
)
OF_LONG = ("checks", "composing", "mace", "mace_stages", "stereo_stages", "published_defaults", "settings", "stereo")
WORDS = ("a_file_of_words_that_holds_the_target_is_refused", "the_tokenizers_words_are_a_vocabulary")
WORDS += ("vocabulary_from_a_file_and_mixtures",)
COMPOSE = ("every_setting_is_of_the_loop_or_of_an_answer", "a_setting_that_no_answer_reads_is_refused")
COMPOSE += ("bad_compositions_are_refused_before_work", "its_name_is_listed_with_what_depends_on_the_choice")
CAPABILITIES = ("the_source_says_what_the_class_says", "both_spellings_of_a_name")
CAPABILITIES += ("a_base_class_elsewhere_and_none_at_all", "what_serving_an_architecture_takes")
CONTRACT = ("it_is_described_and_final", "arguments_it_cannot_use_are_refused_before_work", "unknown_method")
JUDGING = ("judging", "metrics", "estimates", "alarms", "trial", "rows_table", "places", "images", "evaluate")
PARTS = {
    "functional": Part(["functional"], ["functional"]),
    "judging": Part(
        [f"evaluation/{name}.py" for name in JUDGING],
        ["evaluation"],
    ),
    "gate": Part(
        ["compliance"],
        ["compliance", "report/test_verdict.py"],
    ),
    "records": Part(
        ["records", "edits/integrity.py"],
        ["records", "compliance", "edits/test_integrity.py", "edits/test_digests.py", "cli/test_notebook.py"],
    ),
    "attacks": Part(
        ["robustness/merging.py", "robustness/results.py"],
        ["robustness"],
    ),
    "methods": Part(
        [f"methods/{file.name}" for file in METHODS if file.stem not in LONG],
        [
            *(f"methods/test_{name}.py" for name in OF_METHODS),
            *("training/test_pictures.py", "guidance/test_gate.py"),
            *(f"training/test_vocabulary_search.py::test_{name}" for name in WORDS),
            "training/test_real_sizes.py::test_trajectories_are_shared_out_among_the_targets",
            "guidance/test_guides.py::test_methods_hold_the_papers_settings_and_refuse_others",
            *(f"contract/test_capabilities.py::test_{name}" for name in CAPABILITIES),
            *(f"contract/test_methods.py::test_{name}" for name in CONTRACT),
        ],
    ),
    "long methods": Part(
        [f"methods/{name}.py" for name in LONG],
        [
            *(f"methods/test_{name}.py" for name in OF_LONG),
            *(f"methods/test_compose.py::test_{name}" for name in COMPOSE),
            *(f"contract/test_methods.py::test_{name}" for name in CONTRACT),
        ],
    ),
    "axes": Part(
        [f"training/{axis}" for axis in AXES],
        [
            *(f"training/test_{name}.py" for name in OF_AXES),
            *(f"methods/test_{name}.py" for name in OF_AXES_TOO),
        ],
    ),
}
"""What decides what a record says, and what decides what an edit is."""
