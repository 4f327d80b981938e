"""A page in the browser to try edits on: base and edited side by side, attacks by prompts, and the commands."""
