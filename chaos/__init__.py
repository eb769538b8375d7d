"""Real devices under load while everything goes wrong that can, and what must hold all the same."""
