"""Alarms: warnings about circumstances in which a report's numbers are misleading."""

from collections.abc import Mapping, Sequence

from ..concept import fold_name
from ..plurals import write_count, write_percent
from ..records.report import Alarm, Measure

DRAWN = 0.5
"""The rate of the target in the base's pictures below which there is little to erase."""
UNSCORED = 0.02
LEFT_OUT = "groups of kept things were left out"
"""The name of the alarm for groups of kept things that were not drawn."""
UNTESTED = "a target was not tested"
"""The name of the alarm for targets that no prompt asks for."""
COLLAPSE = 0.5
"""Of the base's rate, or of its diversity."""
FIT = 0.7
"""Of the base's CLIP similarity: that of pictures to prompts that are not theirs is far from 0."""
BROKEN = 0.1
"""Further pictures that are flat or noise."""
FITTED = 0.05
"""The share of the target's prompts that the edit was fitted with, above which they say little about other prompts."""


def find_alarms(
    measures: Sequence[Measure], roles: Mapping[str, str], failures: Mapping[str, tuple[int, str]] | None = None
) -> tuple[Alarm, ...]:
    """The alarms that these measures raise.

    Args:
        roles: "erase" or "keep" for each group.
        failures: of each scorer that failed, on how many pictures, and why.
    """
    combined = [m for m in measures if m.judge == "all"]
    judged = {m.group for m in combined if m.metric == "psr1"}
    found = [_warn_not_drawn(m) for m in combined if m.metric == "esr1"]
    found += [_warn_collapsed(m) for m in combined if m.metric == "psr1" and roles.get(m.group) == "keep"]
    # Where no judge knows the kept things, how well pictures fit their prompts has to do.
    unjudged = [m for m in measures if m.metric == "clip" and roles.get(m.group) == "keep" and m.group not in judged]
    found += [_warn_unfitting(m) for m in unjudged]
    found += [_warn_broken(measures), _warn_alike(measures), _warn_unscored(measures)]
    found += [_describe_failure(scorer, n, why) for scorer, (n, why) in (failures or {}).items()]
    return tuple(a for a in found if a is not None)


def warn_of_left_out(groups: Mapping[str, str], drawn: Sequence[str]) -> tuple[Alarm, ...]:
    """The alarm for groups of kept things that the headlines are about and that were not drawn, where others were.

    Args:
        groups: the titles of these groups in the whole suite, by name.
        drawn: the names of all groups of kept things that were drawn.
    """
    left = [title for name, title in groups.items() if name not in drawn]
    if not left or not drawn:
        return ()
    return (
        Alarm(
            name=LEFT_OUT,
            raised_when=f"the suite has them, and they were not drawn: {', '.join(left)}",
            means="Rates of kept things are about the groups that were drawn; near things usually lose most.",
            do="Evaluate without --group in another folder, with the same --images: what is there is not drawn again.",
        ),
    )


def warn_of_untested(unasked: Sequence[str], title: str) -> tuple[Alarm, ...]:
    """The alarm for targets that no prompt asks for.

    Args:
        unasked: these targets.
        title: the title of the group of prompts that ask for targets.
    """
    if not unasked:
        return ()
    return (
        Alarm(
            name=UNTESTED,
            raised_when=f"no prompt ({title}) asks for {', '.join(unasked)}",
            means="The rates of erasure say nothing of it.",
            do="Evaluate with more prompts (--per-group), with all groups, or with a suite that asks for every target.",
        ),
    )


def warn_of_fitted(prompts: Sequence[str], targets: Sequence[str], templates: Sequence[str]) -> tuple[Alarm, ...]:
    """The alarm for prompts of the suite that the edit was fitted with.

    Args:
        prompts: those of the rows that ask for a target.
        targets: the erased concepts. If no prompt holds more than their names, the model is one of classes, which has
            no other prompts, and there is no alarm.
        templates: the prompt templates of the fit, with {} for the concept.
    """
    fitted = {fold_name(template.replace("{}", target)) for template in templates for target in targets}
    seen = sum(fold_name(prompt) in fitted for prompt in prompts)
    if seen <= FITTED * len(prompts) or {fold_name(p) for p in prompts} <= {fold_name(t) for t in targets}:
        return ()
    return (
        Alarm(
            name="prompts of the suite were used in fitting",
            raised_when=f"{seen} of {write_count(len(prompts), 'prompt')} for the target are among the templates of "
            "the fit",
            means="The erasure success on them does not say what other prompts show.",
            do="Fit with other --templates, or evaluate with other prompts.",
        ),
    )


def _warn_not_drawn(m: Measure) -> Alarm | None:
    if m.group != "target" or m.base.value is None or 1 - m.base.value >= DRAWN:
        return None
    rate = f"{write_percent(1 - m.base.value, DRAWN)} of {write_count(m.base.n, 'picture')}"
    return Alarm(
        name="the base does not draw the target",
        raised_when=f"the untouched model shows it in {rate} (under {DRAWN:.0%})",
        means="Most of the erasure success was there before anything was erased.",
        do="Erase something that this model draws, or judge with scorers that know it.",
    )


def _warn_collapsed(m: Measure) -> Alarm | None:
    if m.base.value is None or m.edited.value is None or m.edited.value >= COLLAPSE * m.base.value:
        return None
    return _describe_collapse(
        f"group {m.group}: shown in {write_percent(m.edited.value)} under the edit, "
        f"{write_percent(m.base.value)} before"
    )


def _warn_unfitting(m: Measure) -> Alarm | None:
    if m.base.value is None or m.edited.value is None or m.edited.value >= FIT * m.base.value:
        return None
    fit = f"{m.edited.value:.3f} under the edit, {m.base.value:.3f} before"
    return _describe_collapse(f"group {m.group}: CLIP similarity to the prompts {fit}")


def _describe_collapse(seen: str) -> Alarm:
    return Alarm(
        name="kept concepts collapse",
        raised_when=seen,
        means="The edit destroys much more than the target; a model that draws nothing erases everything.",
        do="Lower the method's steps or learning rate, name concepts with --keep, or use a method that preserves.",
    )


def _warn_broken(measures: Sequence[Measure]) -> Alarm | None:
    found = [m for m in measures if m.metric == "artefact"]
    m = max(found, key=_find_rise, default=None)
    if m is None or _find_rise(m) <= BROKEN:
        return None
    return Alarm(
        name="pictures are flat or noise",
        raised_when=f"group {m.group}: {write_percent(m.edited.value or 0)} under the edit, "
        f"{write_percent(m.base.value or 0)} before",
        means="Such pictures show no concept: erasure by breaking the model counts as success.",
        do="Look at the pictures; lower the method's steps or learning rate.",
    )


def _warn_alike(measures: Sequence[Measure]) -> Alarm | None:
    known = [(m, m.edited.value, m.base.value) for m in measures if m.metric == "diversity"]
    ratios = [(edited / base, m) for m, edited, base in known if edited is not None and base]
    least = min(ratios, key=lambda r: r[0], default=None)
    if least is None or least[0] >= COLLAPSE:
        return None
    share, m = least
    return Alarm(
        name="pictures of a concept become alike",
        raised_when=f"group {m.group}: their diversity is {write_percent(share, COLLAPSE)} of the base's "
        f"({m.judge}, n = {m.edited.n})",
        means="The edited model answers different prompts and seeds with nearly one picture.",
        do="Look at the pictures; lower the method's steps or learning rate, or give it a broader anchor.",
    )


def _warn_unscored(measures: Sequence[Measure]) -> Alarm | None:
    worst = max(measures, key=_find_unscored, default=None)
    if worst is None or _find_unscored(worst) <= UNSCORED:
        return None
    return Alarm(
        name="too many pictures unscored",
        raised_when=f"{write_percent(_find_unscored(worst), UNSCORED)} of the pictures behind "
        f"{worst.metric} ({worst.group}) have no score",
        means="The rates speak of the rest only; what could not be judged is not known to be safe.",
        do="Read the explanations in rows.parquet, repair the scorer, and evaluate again: only scores are made anew.",
    )


def _describe_failure(scorer: str, pictures: int, why: str) -> Alarm:
    return Alarm(
        name="a scorer failed",
        raised_when=f"{scorer} failed on {write_count(pictures, 'picture')} of base and edited model; first {why}",
        means="These pictures have no score of it, and are counted as unscored: the other pictures alone decide.",
        do="Free memory, raise --scorer-timeout, or repair the scorer, and evaluate again: only scores are made anew.",
    )


def _find_unscored(m: Measure) -> float:
    return max(e.unscored / (e.n + e.unscored) if e.n + e.unscored else 0.0 for e in (m.base, m.edited))


def _find_rise(m: Measure) -> float:
    """The value under the edit minus the base's, where one that is not known counts as 0."""
    return (m.edited.value or 0) - (m.base.value or 0)
