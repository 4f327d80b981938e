"""Balances, one file each: how the gradients of several losses become one step."""
