"""Checks what the parts of a training give, so that a part that is written wrongly is named in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from torch import Tensor

from ..catalog import did_you_mean
from .data import LossRole, ModelRole, Query
from .interfaces import Balance, Step, Term, Update


def require_parts(method: Any, update: Any, balance: Any) -> tuple[Update, Balance]:
    """Returns the update and the balance of a method; raises ValueError where one of them is something else."""
    for name, given, kind in (("build_update", update, Update), ("build_balance", balance, Balance)):
        if not isinstance(given, kind):
            example = "Dense(self.weights, self.lr)" if kind is Update else "Sum()"
            raise ValueError(
                f"{type(method).__name__}.{name} returned {_describe(given)}; it has to return an object of a subclass "
                f"of {kind.__name__}, such as {example}"
            )
    return update, balance


def check_terms(method: str, terms: Any) -> None:
    """Raises ValueError where a method's terms are none, or one of them is no term or has no such role."""
    if not isinstance(terms, Sequence) or not terms:
        raise ValueError(f"{method}.build_terms returned {_describe(terms)}; it has to return a tuple of terms")
    for term in terms:
        if not isinstance(term, Term):
            raise ValueError(f"{method}.build_terms returned {_describe(term)} among its terms; each is a Term")
        if (role := getattr(term, "role", None)) not in get_args(LossRole):
            raise ValueError(f"{type(term).__name__}.role is {role!r}{_list_roles(role, get_args(LossRole))}")


def check_queries(term: Term, queries: Any) -> Mapping[str, Query] | None:
    """Returns a term's queries; raises ValueError where they are no queries, or one has no such role."""
    if queries is None:
        return None
    name = f"{type(term).__name__}.build_queries"
    if not isinstance(queries, Mapping) or not all(isinstance(query, Query) for query in queries.values()):
        raise ValueError(
            f"{name} returned {_describe(queries)}; it has to return a dict of Query by name, or None where it has no "
            "part in the step"
        )
    for key, query in queries.items():
        if query.role not in get_args(ModelRole):
            raise ValueError(
                f"{name}: the role of the query {key!r} is {query.role!r}{_list_roles(query.role, get_args(ModelRole))}"
            )
    return queries


def require_asked(terms: Sequence[Term], asked: Sequence[Any], step: Step) -> None:
    """Raises ValueError where no term has a part in a step, in which there is thus no loss."""
    if not asked:
        names = " and ".join(dict.fromkeys(f"{type(term).__name__}.build_queries" for term in terms)) or "no term"
        raise ValueError(
            f"step {step.index + 1} ({type(step.learner).__name__}) has no loss: {names} returned None; at least one "
            "has to return queries"
        )


def check_loss(term: Term, loss: Any) -> Tensor:
    """Returns a term's loss; raises ValueError where it is no scalar tensor."""
    if not isinstance(loss, Tensor) or loss.ndim:
        raise ValueError(
            f"{type(term).__name__}.compute_loss returned {_describe(loss)}; it has to return a scalar tensor, such as "
            "(predictions['student'] - predictions['teacher']).square().mean()"
        )
    return loss


def check_gradient(total: Tensor, terms: Sequence[Term]) -> None:
    """Raises ValueError where the weighted sum of these terms' losses depends on nothing that is trained."""
    if not total.requires_grad:
        names = " and ".join(dict.fromkeys(f"{type(term).__name__}.compute_loss" for term in terms))
        raise ValueError(
            f"{names} returned a tensor without a gradient; compute it of a prediction whose query has the role "
            "'student', without detach or no_grad"
        )


def _list_roles(given: Any, known: Sequence[str]) -> str:
    near = did_you_mean(str(given), known)
    return near if "mean" in near else f"; it is {', '.join(map(repr, known[:-1]))} or {known[-1]!r}"


def _describe(given: Any) -> str:
    """A value in few words."""
    if isinstance(given, Tensor):
        return f"a tensor of shape {list(given.shape)}"
    said = repr(given)
    return said if given is None or len(said) < 40 else f"a {type(given).__name__}"
