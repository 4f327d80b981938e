"""The training loop and its axes: objectives, preservation, states, balance and updates."""
