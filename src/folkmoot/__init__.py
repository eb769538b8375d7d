"""Folkmoot: your machines' language models answer together, without a server in the middle."""

__version__ = "0.1.0"
__all__ = ["__version__"]
