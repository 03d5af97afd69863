"""A service that keeps LLM conversations and counts their tokens, contract first."""

from importlib.metadata import version

__version__ = version("convgrpc")
