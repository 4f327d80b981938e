"""How the losses become one step."""
