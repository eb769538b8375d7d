"""What peers and programs may send that nobody would: mutated messages and requests, and what must hold all the same."""
