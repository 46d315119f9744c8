"""Timeouts of a process that may have been stopped.

A process that was suspended, or had too much to do, may notice long afterwards that a time is over.
What its peer has done meanwhile may wait in a socket. So the peer is not blamed, and gets its time
once more.
"""

import trio

_LATE = 1.0  # seconds


def is_late(scope: trio.CancelScope) -> bool:
    """Return whether it is long after the deadline of a scope, which has just been cancelled by that."""
    return trio.current_time() - scope.deadline >= _LATE
