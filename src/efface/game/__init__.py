"""Erasing as a game: terms ask, the model answers, players move; and the Edit that is left."""

from .edit import Edit, WrongBase, apply
from .loop import Diverged, Game
from .method import Method, Trained
from .optimiser import Adam
from .protocols import Ask, Balance, Player, Role, Rows, Source, Term, Turn, Update

__all__ = [
    "Adam",
    "Ask",
    "Balance",
    "Diverged",
    "Edit",
    "Game",
    "Method",
    "Player",
    "Role",
    "Rows",
    "Source",
    "Term",
    "Trained",
    "Turn",
    "Update",
    "WrongBase",
    "apply",
]
