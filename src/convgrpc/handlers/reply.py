"""The messages of an answer that has several."""

from collections.abc import Callable


class Reply:
    """One message of an answer in several, serialized. Callers who get the same one share what is made of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._made: dict[Callable[[bytes], bytes], bytes] = {}

    def cached_encoding(self, make: Callable[[bytes], bytes]) -> bytes:
        """What a function makes of the message, which is called the first time alone."""
        made = self._made.get(make)
        if made is None:
            made = self._made[make] = make(self.data)
        return made
