"""The parts of the package that `tests/mutants.py` mutates by name, each with the tests that are run against it.

The tests of a part are those that fail for it soon: a figure counts what these notice, and others may notice more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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
    *("vocabulary_search", "states", "terms", "attention"),
)
OF_AXES_TOO = ("spm", "mace", "stereo", "advunlearn", "attack_in_the_loop", "ac", "abo")
OF_METHODS = (
    *("abo", "closed_form_base", "closed_form_methods", "closed_forms_on_flows", "mace"),
    *("published_defaults", "refusals", "spm", "stereo", "surgical", "settings"),
)
COMPOSE = ("every_setting_is_of_the_loop_or_of_an_answer", "a_setting_that_no_answer_reads_is_refused")
COMPOSE += ("bad_compositions_are_refused_before_work", "its_name_is_listed_with_what_depends_on_the_choice")
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
        ["methods"],
        [
            *(f"methods/test_{name}.py" for name in OF_METHODS),
            *("training/test_pictures.py", "training/test_vocabulary_search.py", "guidance/test_gate.py"),
            "contract/test_capabilities.py",
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
