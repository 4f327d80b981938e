"""What lies on disk of evaluations, attacks and audits: versioned files that are validated when they are read."""
