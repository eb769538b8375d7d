"""The virtual world: the real protocol over a simulated network, in virtual time, from one seed."""
