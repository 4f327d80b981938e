"""Erasing as a game: terms ask, the model answers, players move; and the Edit that is left."""

from .changes import pack, unpack
from .edit import Edit, WrongBase, apply, provenance, versions
from .loop import Diverged, Game, gradients
from .method import Kind, Method, OnPictures, OnTrajectories, Trained
from .optimiser import Adam
from .protocols import Ask, Balance, Player, Role, Rows, Source, Term, Turn, Update
from .search import Choice, Search, Vocabulary, other_words, read_words

__all__ = [
    "Adam",
    "Ask",
    "Balance",
    "Choice",
    "Diverged",
    "Edit",
    "Game",
    "Kind",
    "Method",
    "OnPictures",
    "OnTrajectories",
    "Player",
    "Role",
    "Rows",
    "Search",
    "Source",
    "Term",
    "Trained",
    "Turn",
    "Update",
    "Vocabulary",
    "WrongBase",
    "apply",
    "gradients",
    "other_words",
    "pack",
    "provenance",
    "read_words",
    "unpack",
    "versions",
]
