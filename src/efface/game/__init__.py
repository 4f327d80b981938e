"""Erasing as a game: terms ask, the model answers, players move; and the Edit that is left."""

from .changes import pack, unpack
from .closed_form import ClosedForm, Reader, Tokens, answers, text_projections
from .edit import Edit, WrongBase, apply, check_same_run, provenance, versions
from .loop import Diverged, Game, gradients
from .method import Kind, Method, OnPictures, OnTrajectories, Trained, positive
from .optimiser import Adam, adam
from .protocols import Ask, Balance, GradOf, Player, Role, Rows, Source, Stateful, Takes, Term, Turn, Update
from .search import Choice, Search, SearchGradient, Vocabulary
from .searching import Searching
from .words import naming, other_words, read_words, unlike_words

__all__ = [
    "Adam",
    "Ask",
    "Balance",
    "Choice",
    "ClosedForm",
    "Diverged",
    "Edit",
    "Game",
    "GradOf",
    "Kind",
    "Method",
    "OnPictures",
    "OnTrajectories",
    "Player",
    "Reader",
    "Role",
    "Rows",
    "Search",
    "SearchGradient",
    "Searching",
    "Source",
    "Stateful",
    "Takes",
    "Term",
    "Tokens",
    "Trained",
    "Turn",
    "Update",
    "Vocabulary",
    "WrongBase",
    "adam",
    "answers",
    "apply",
    "check_same_run",
    "gradients",
    "naming",
    "other_words",
    "pack",
    "positive",
    "provenance",
    "read_words",
    "text_projections",
    "unlike_words",
    "unpack",
    "versions",
]
