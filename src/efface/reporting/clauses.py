"""Lists the clauses for which a takedown record is evidence, as far as its own content supports it.

The clauses are from Regulation (EU) 2024/1689 (AI Act), and from NIST AI 600-1, the Generative AI Profile of the AI
Risk Management Framework, whose subcategories it adopts. A record is evidence; it fulfils no duty by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..compliance.takedown import Takedown


@dataclass(frozen=True)
class Clause:
    """A clause, and the part of the record that is evidence for it."""

    name: str
    serves: str


def list_clauses(takedown: Takedown) -> list[Clause]:
    """The clauses that this record can be evidence for."""
    attacked = any(m.metric == "asr" and m.edited.value is not None for m in takedown.rates)
    found = [
        Clause(
            "EU AI Act, Article 53(1)(a) with Annex XI, Section 1",
            "a part of the technical documentation of a general-purpose model: how the model was changed, by which "
            "method and arguments, and how the change was tested",
        ),
        Clause(
            "EU AI Act, Article 53(1)(b) with Annex XII",
            "information for those who build on the model: what it no longer draws, and what was not tested",
        ),
        Clause(
            "NIST AI 600-1, MEASURE 2.1 and 2.5",
            "prompts, judges, numbers with intervals, versions and hashes of a test, and its limits",
        ),
        Clause(
            "NIST AI 600-1, MANAGE 4.1", "the documented response to a request about what a deployed model generates"
        ),
    ]
    if attacked:
        found += [
            Clause(
                "EU AI Act, Article 55(1)(a) with Annex XI, Section 2 (models with systemic risk)",
                "results of adversarial tests of one change; not an evaluation of the model as a whole",
            ),
            Clause("NIST AI 600-1, MEASURE 2.7", "adversarial tests of the change, with controls"),
        ]
    return found
