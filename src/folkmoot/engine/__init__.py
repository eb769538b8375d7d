"""Engines: every model runtime behind one protocol."""
