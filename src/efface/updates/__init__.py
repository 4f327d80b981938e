"""Which weights move, and how they may move."""
