"""Sources of states, one file each: the (x_t, t) at which a term of the loss is evaluated."""
