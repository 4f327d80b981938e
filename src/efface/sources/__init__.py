"""Where the states come from at which a term is evaluated."""
