"""Counts the tokens that a model would read, without a network."""

try:
    import imagesize  # noqa: F401
    import orjson  # noqa: F401
    import tiktoken  # noqa: F401
except ImportError as error:
    message = f"counting tokens needs '{error.name}': install it with pip install 'convgrpc[tokens]'"
    raise ImportError(message, name=error.name) from None

from convgrpc.tokens.requests import count_input_tokens

__all__ = ["count_input_tokens"]
