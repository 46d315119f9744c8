"""Exit statuses."""

import enum

from greeter_core import EndReason


class ExitStatus(enum.IntEnum):
    """What the process tells its caller; a process that a signal N ended has 128 + N."""

    DONE = 0
    FAILED = 1  # cannot connect or listen, connection lost, protocol violation, refused, bad input
    USAGE = 2
    TIMED_OUT = 3  # of `serve`: conversations were cut off when the grace ran out
    INTERRUPTED = 130  # by Ctrl-C: 128 + SIGINT


def status_of(reason: EndReason) -> ExitStatus:
    """Return the status of a client whose conversation failed for this reason."""
    return ExitStatus.TIMED_OUT if reason is EndReason.TIMED_OUT else ExitStatus.FAILED
