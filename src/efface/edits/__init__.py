"""The Edit: changes of weights or a guide, with the record of how they came about, in one file."""
