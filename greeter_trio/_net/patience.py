"""Timeouts in a process that may have been stopped.

A process that was suspended or overloaded may notice a deadline long after it has passed. What its
peer has done meanwhile may be waiting in a socket. So a timeout that is noticed late is not held
against the peer: its time begins anew.
"""

import trio

_LATE = 1.0  # seconds


def is_late(scope: trio.CancelScope) -> bool:
    """Return whether a scope, which its deadline has just cancelled, was cancelled far too late."""
    return trio.current_time() - scope.deadline >= _LATE
