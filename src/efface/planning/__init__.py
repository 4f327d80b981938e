"""The memory planner: what a run will need, and which flags make it fit."""
