"""Warnings that may be due again and again, and are logged now and then."""

import logging
import math

import trio

from .text import pluralized

NOTICE_PAUSE = 60.0  # seconds from one line to the next

_logger = logging.getLogger("greeter_trio")


class Notice:
    """A warning of one kind: logged when it is due, but at most once a minute, with a count."""

    def __init__(self, kind: str, noun: str) -> None:
        """`kind` is its name for programs, and `noun` what is counted."""
        self._kind = kind
        self._noun = noun
        self._message = ""  # the last one
        self._told_at = -math.inf
        self._told = 0  # the count that was logged last
        self.count: int = 0
        """How often it was due so far."""

    def give(self, message: str) -> None:
        """Count it, and log this message unless one was logged within the last minute."""
        self.count += 1
        self._message = message
        if trio.current_time() >= self._told_at + NOTICE_PAUSE:
            self.tell_rest()

    def tell_rest(self) -> None:
        """Log the last message with the count, if it was due since the last line."""
        if self.count > self._told:
            self._told, self._told_at = self.count, trio.current_time()
            facts = {"event": "warning", "kind": self._kind, "count": self.count}
            so_far = pluralized(self.count, self._noun)
            _logger.warning("%s (%s so far)", self._message, so_far, extra={"facts": facts})
