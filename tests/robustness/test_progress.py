"""Progress of a campaign: every attack's own, and that of all together, which begins with the whole number."""

from __future__ import annotations

from efface.records.attacks import PlannedAttack
from efface.robustness.progress import ALL, CampaignProgress


def plan_attack(attack: str, rows: int) -> PlannedAttack:
    return PlannedAttack(attack=attack, condition="target", version="1", settings={}, inputs=("x",), rows=rows)


def test_all_attacks_together_are_told_from_nothing_to_the_end() -> None:
    told: list[tuple[str, int, int]] = []
    progress = CampaignProgress(lambda *all: told.append(all))
    progress("plain prompts of the suite, base, cat", 8, 8)  # looked at, not attacked
    progress.expect([plan_attack("seeds", 8), plan_attack("synonyms", 8)])
    progress("seeds, target, cat", 4, 8)
    progress("seeds, target, cat", 8, 8)
    progress("synonyms, target, cat", 3, 3)  # five of eight showed it by themselves
    progress.finish()
    assert [t[1:] for t in told if t[0] == ALL] == [(0, 16), (4, 16), (8, 16), (11, 16), (16, 16)]
    assert told[0] == ("plain prompts of the suite, base, cat", 8, 8) and told.count(("seeds, target, cat", 4, 8)) == 1


def test_nobody_need_listen() -> None:
    CampaignProgress(None)("seeds", 1, 2)
