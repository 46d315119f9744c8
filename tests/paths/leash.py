"""`python -m tests.paths.leash COMMAND...`: run a command, and kill it when its parent ends."""

import ctypes
import os
import signal
import sys

assert sys.platform == "linux"

_PR_SET_PDEATHSIG = 1  # linux/prctl.h; it survives execv

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.execv(sys.argv[1], sys.argv[1:])
