"""Hooks that read the inside of a network: attention maps and activations."""
