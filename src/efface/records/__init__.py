"""The files of evaluations, attacks and audits: they have versions, and are validated when they are read."""
