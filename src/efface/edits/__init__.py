"""The Edit: changes of weights or a guide, with the record of how they were made, in one file."""
