"""Compose: one answer on each axis, chosen by name; most trained methods here are such a choice, and so is any new mix.

The objectives are negative-guidance (ESD), anchor (concept ablation), guidance (ABO), wrong-noise (EraseDiff, SalUn),
denoise-up (NegGrad), adaptive-anchor (AGE), attacked (AdvUnlearn) and gem (GEM). What is preserved is nothing,
unconditional (ABO), prompts, adversarial (EAP) or remain (EraseDiff). The balance is sum or constrained (EraseDiff);
the update is dense, low-rank, mask (pruning) or salient (SalUn). Parts that only one method has are not offered: the
words that AdvUnlearn retains and by which SPM anchors, SPM's gate, noise-based AC, training without a target, and the
stages of MACE and STEREO. An answer of your own is a file in the folder of its axis, and its name is the file's
(`answers` says how it is built). The formulas stand in the files of the answers. Defaults are ESD's. A setting that no
chosen answer uses is refused.

This example mixes three papers: it prunes, preserves the word that pruning damages most, and is attacked in every
update:

    efface erase compose --target cat --objective attacked --preserve adversarial --update mask --lr 0.05 --space x0
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, final

import tyro

from ..concept import Erasure
from ..edits.edit import Edit
from ..models.base import Model
from ..training.balance.constrained import Constrained, Rate
from ..training.balance.sum import Sum
from ..training.interfaces import Balance, Source, Term, Update
from ..training.objectives.adaptive_anchor import AdaptiveAnchor
from ..training.objectives.anchor import Anchor
from ..training.objectives.attacked import Attacked, PrefixAttack, Start
from ..training.objectives.denoising import Denoising
from ..training.objectives.gem import GEM
from ..training.objectives.guidance import Aim, Guidance, choose_goal
from ..training.objectives.negative_guidance import NegativeGuidance
from ..training.objectives.wrong_noise import Wrong, WrongNoise
from ..training.preservation.adversarial import Adversarial
from ..training.preservation.nothing import NoPreservation
from ..training.preservation.prompts import FixedPrompts
from ..training.preservation.unconditional import Unconditional
from ..training.states.early import Early
from ..training.states.shared import Shared
from ..training.updates.dense import Dense
from ..training.updates.lowrank import LowRank
from ..training.updates.mask import KeepWeights, Mask, Relaxation, check_reach, require_pruned
from ..training.updates.salient import Salient
from ..training.vocabulary_search import SearchGradient, VocabularySearch
from .answers import AXES, CATALOGUE, USES, build_answer, list_offered, list_parameters, parse_options
from .base import ImageMethod, Method, Trained
from .searching import SearchMethod
from .states import (
    build_forget_pictures,
    build_preservation_states,
    build_remain_pictures,
    build_target_trajectories,
    build_trajectories,
    choose_labels,
)

_USED = (NegativeGuidance, Anchor, Guidance, WrongNoise, Denoising, AdaptiveAnchor, Attacked, GEM, NoPreservation)
_USED += (Unconditional, FixedPrompts, Adversarial, Sum, Constrained, Dense, LowRank, Mask, Salient)
_PARTS = ("source", "search", "model", "erasure", "selection")


@final
@dataclass(frozen=True, kw_only=True)
class Compose(SearchMethod, ImageMethod):
    """A method of your own: one answer on each axis, with the settings that these answers need."""

    by_choice: ClassVar[bool] = True
    uses_keep: ClassVar[bool] = False
    objective: str = "negative-guidance"
    """What the model should predict for the target now: negative-guidance, anchor, guidance, wrong-noise, denoise-up,
    adaptive-anchor, attacked, gem, or another objective of the catalogue."""
    preserve: str = "nothing"
    """What is preserved: nothing, unconditional, prompts (of the concepts to keep), adversarial, remain, or another
    preservation of the catalogue."""
    balance_: Annotated[str, tyro.conf.arg(name="balance")] = "sum"
    """How the losses become one step: sum, constrained, or another balance of the catalogue."""
    update_: Annotated[str, tyro.conf.arg(name="update")] = "dense"
    """How weights change: dense, low-rank, mask, salient, or another update. A mask needs an lr of about 5e-2."""
    states: Literal["trajectories", "pictures"] = "trajectories"
    """The states at which the objective is evaluated; wrong-noise and denoise-up are always evaluated on pictures."""
    first: int = 10
    """Number of steps, the noisiest of a trajectory, from which the states of the objective "gem" are taken."""
    shows: Literal["target", "anchor"] = "target"
    """What the states of the objective "anchor" show."""
    eta: float = 1.0
    """Strength of negative guidance: how far beyond the unconditional prediction the target is pushed."""
    goal: Aim = "auto"
    """What the guidance term becomes: the anchor's, zero, or the target's reversed; auto prefers the anchor's."""
    detach: bool = True
    """Stop the gradient of the unconditional prediction in the guidance term."""
    wrong: Wrong = "label"
    """What is learned on pictures of the target: another concept's prediction, or uniform noise."""
    label: str = "a photo of a pokemon"
    """The other concept if the request has no anchor; class-conditional models take any other class."""
    attack_steps: int = 30
    """Steps of the attack on the prompt in each update."""
    attack_lr: float = 1e-3
    """Adam's learning rate of the attack."""
    attack_tokens: int = 1
    """Token embeddings that the attack puts before the prompt."""
    attack_start: Start = "random"
    """Start of each attack after the first: random words again, or the last prefix."""
    warm_up: int = 200
    """Updates before the first attack."""
    hard: bool = True
    """Choose one candidate (straight-through) rather than a mixture."""
    top: int = 0
    """Number of candidates in a mixture, on stored trajectories of the most likely one; 0 mixes all, on the
    student's."""
    search_gradient: SearchGradient = "straight-through"
    """How the search learns: through the chosen word's embedding, as in EAP, or by the words' losses alone."""
    rate: Rate = "grad-norm"
    """How fast the erasing loss must fall: rate-eta ||grad g||^2, rate-eta g, rate-eta; or lambda_t fixed at it."""
    rate_eta: float = 1.0
    """The rate's factor."""
    inner: int = 0
    """Number of steps that estimate the least erasing loss; only --rate gap needs them."""
    rank: int = 8
    """Rank of the low-rank update."""
    relaxation: Relaxation = "straight-through"
    """How the mask is learned: straight-through sigmoid, or hard-concrete samples."""
    tau: float = 1.0
    """Temperature of the relaxation."""
    start: float = 4.0
    """Initial logit of every weight in the mask."""
    beta: float = 1e-2
    """Weight of the share of pruned weights in the loss."""
    sparsity: float = 0.0
    """Prune exactly this share of the selected weights; 0 prunes all with a negative logit."""
    fill: float = 0.0
    """Noise that replaces pruned weights, in units of each tensor's standard deviation."""
    share: float = 0.5
    """Share of the weights that may change, the most salient ones."""
    looks: int = 20
    """Number of batches over which saliency is summed."""
    option: tuple[str, ...] = ()
    """Settings, NAME=VALUE each, of answers that have no arguments here."""

    def __post_init__(self) -> None:
        Trained.__post_init__(self)
        options = parse_options(self.option)
        for axis, answers in AXES.items():
            if (answer := getattr(self, axis)) not in (known := (*answers, *self._list_others(axis, options))):
                raise ValueError(f"no {axis.removesuffix('_')} {answer!r}; there are {', '.join(known)}")
        for field in dataclasses.fields(self):
            if field.name in self.idle and getattr(self, field.name) != field.default:
                raise ValueError(self._explain_idle(field.name))
        if self.objective == "adaptive-anchor" and self.preserve != "adversarial":
            raise ValueError("the adaptive anchor is what the adversarial search chose: it needs preserve adversarial")
        if self.balance_ == "constrained" and self.preserve == "nothing":
            raise ValueError("a constrained balance weighs forgetting against what is preserved, and that is nothing")
        if self.preserve == "adversarial":
            self.check_mixture(self.hard or self.top > 0)
        if self.update_ == "mask":
            check_reach(self.steps, self.lr, self.start, self.sparsity)

    @property
    def answers(self) -> Mapping[str, str]:
        """The answer on each axis, and the states that follow from the objective."""
        given = {axis: getattr(self, axis) for axis in AXES}
        return given | ({"states": "pictures"} if self.objective in ("wrong-noise", "denoise-up") else {})

    @property
    def idle(self) -> frozenset[str]:
        """The settings that none of the chosen answers reads."""
        used = {name for choice in self.answers.items() for name in USES.get(choice, ())}
        for axis, answer in self.answers.items():
            if answer not in AXES[axis]:
                used |= {
                    "states" if name == "source" else name for name in list_parameters(CATALOGUE[axis].get(answer))
                }
        return frozenset(name for names in USES.values() for name in names) - used

    def _list_others(self, axis: str, options: Mapping[str, Any]) -> list[str]:
        """Lists other answers of the catalogue on an axis that can be built from the arguments."""
        if getattr(self, axis) in AXES[axis] or axis not in CATALOGUE:
            return []
        fields = [field.name for field in dataclasses.fields(self)]
        return list_offered(CATALOGUE[axis], _USED, {*fields, *_PARTS, *options})

    def _build_other(self, axis: str, **parts: Any) -> Any:
        """Builds the catalogue's answer on an axis from these parts and the arguments."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        given = {**own, "selection": self.weights, **parts}
        return build_answer(CATALOGUE[axis], getattr(self, axis), given, parse_options(self.option))

    def _explain_idle(self, name: str) -> str:
        users = [f"{axis.removesuffix('_')} {answer}" for (axis, answer), names in USES.items() if name in names]
        ours = ", ".join(f"{axis.removesuffix('_')} {answer}" for axis, answer in self.answers.items())
        return f"Compose has no use for {name}={getattr(self, name)!r} with {ours}; {' or '.join(users)} would use it"

    def check(self, erasure: Erasure, model: Model | None = None) -> None:
        """Checks as every method does, by what the chosen answers can use."""
        Method.check(self, Erasure(erasure.targets), model)
        alternative = self.objective == "guidance" and self.goal in ("auto", "alternative")
        relabels = self.objective == "wrong-noise" and self.wrong == "label"
        optional = alternative or self.objective == "gem"
        needs = self.objective == "anchor" or (alternative and self.goal == "alternative")
        if erasure.anchor and not (needs or optional or relabels):
            raise ValueError(f"objective {self.objective} has no use for an anchor ({erasure.anchor!r}); leave it out")
        if needs and not erasure.anchor:
            raise ValueError(f"objective {self.objective} replaces the target by an anchor; name one")
        if erasure.keep and self.preserve in ("nothing", "unconditional"):
            raise ValueError(
                f"preserve {self.preserve} has no use for concepts to keep ({', '.join(erasure.keep)}); "
                "prompts, adversarial and remain preserve them"
            )
        if self.preserve == "prompts" and not erasure.keep:
            raise ValueError("preserve prompts holds the concepts to keep; name at least one")

    def relies_on_uncond(self, erasure: Erasure) -> bool:
        """Whether an answer moves a prediction relative to the unconditional one, or makes the target the empty
        prompt."""
        pushes = self.objective in ("negative-guidance", "guidance", "attacked")
        return pushes or self.preserve == "unconditional" or (self.objective == "gem" and not erasure.anchor)

    def build_terms(self, model: Model, erasure: Erasure) -> Sequence[Term]:
        source = self._build_states(model, erasure)
        search = self.build_search(model, erasure, self.hard, self.top, self.search_gradient)
        preservation = self._build_preservation(model, erasure, source, search)
        cost = (KeepWeights(self.beta),) if self.update_ == "mask" else ()
        return (self._build_objective(model, erasure, source, search), preservation, *cost)

    def _build_states(self, model: Model, erasure: Erasure) -> Source:
        """The objective's source, shared with a preservation at the same states."""
        if self.answers["states"] == "trajectories":
            alike = self.objective == "anchor" and self.shows == "anchor"  # the anchor's, which all targets have
            return Shared(build_trajectories(self, self.paths) if alike else build_target_trajectories(self, erasure))
        uniform = self.objective == "wrong-noise" and self.wrong == "uniform-noised"
        return Shared(build_forget_pictures(self, model, erasure, "uniform" if uniform else "gaussian"))

    def _build_objective(self, model: Model, erasure: Erasure, source: Source, search: VocabularySearch) -> Term:
        match self.objective:
            case "negative-guidance":
                return NegativeGuidance(source, self.eta, self.space)
            case "anchor":
                return Anchor(source, self.space, self.shows)
            case "guidance":
                return Guidance(source, choose_goal(self.goal, erasure.anchor), self.eta, self.detach, self.space)
            case "wrong-noise":
                others = choose_labels(model, erasure, self.label) if self.wrong == "label" else ()
                return WrongNoise(source, others, self.wrong, self.space)
            case "denoise-up":
                return Denoising(source, self.space, "erase", sign=-1.0)
            case "gem":
                return GEM(Early(source, self.first), self.eta, self.space)
            case "attacked":
                how = (self.attack_steps, self.attack_lr, self.attack_tokens, self.warm_up, self.attack_start)
                return Attacked(source, self.eta, self.space, PrefixAttack(*how))
            case "adaptive-anchor":
                return AdaptiveAnchor(source, search, self.eta, self.space)
            case _:
                return self._build_other("objective", source=source, search=search, model=model, erasure=erasure)

    def _build_preservation(self, model: Model, erasure: Erasure, source: Source, search: VocabularySearch) -> Term:
        match self.preserve:
            case "nothing":
                return NoPreservation()
            case "unconditional":
                return Unconditional(source, self.space)
            case "prompts":
                prompts = [template.format(word) for word in erasure.keep for template in self.templates]
                return FixedPrompts(build_preservation_states(self), prompts, self.space)
            case "adversarial":
                return Adversarial(build_preservation_states(self), search, self.space)
            case "remain":
                pictures, captions = build_remain_pictures(self, model, erasure)
                return Denoising(pictures, self.space, "keep", captions)
            case _:
                return self._build_other("preserve", source=source, search=search, model=model, erasure=erasure)

    def build_update(self) -> Update:
        match self.update_:
            case "dense":
                return Dense(self.weights, self.lr)
            case "low-rank":
                return LowRank(self.weights, self.lr, self.rank)
            case "mask":
                return Mask(self.weights, self.lr, self.relaxation, self.tau, self.start, self.sparsity, self.fill)
            case "salient":
                return Salient(self.weights, self.lr, self.share, self.looks)
            case _:
                return self._build_other("update_")

    def finish(self, edit: Edit, erasure: Erasure) -> Edit:
        return require_pruned(edit, self.steps, self.lr, self.beta) if self.update_ == "mask" else edit

    def build_balance(self) -> Balance:
        if self.balance_ == "sum":
            return Sum(keep=self.keep_weight)
        if self.balance_ == "constrained":
            return Constrained(self.rate, self.rate_eta, self.inner)
        return self._build_other("balance_")
