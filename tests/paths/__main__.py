"""How original clients fare on bad paths, and what S2.7 is worth: `python -m tests.paths SEED...`.

Of 30 clients so many hung, with seeds 1 to 5 (Linux 6.18, two CPUs):

| path              | the server asks the kernel | it does not        |
| ----------------- | -------------------------- | ------------------ |
| RTT 300 ± 40 ms   | 0, 0, 0, 0, 0              | 8, 11, 6, 7, 6     |
| 3 % lost each way | 0, 0, 0, 0, 0              | 3, 2, 5, 3, 3      |
| 20 % reordered    | 0, 0, 0, 0, 0              | 17, 14, 16, 17, 17 |
| dead for 2.5 s    | 0, 0, 0, 0, 0              | 2, 1, 2, 2, 2      |

The right column depends on chance, so there is no test of it.
"""

import sys
import time

from tests.support.processes import COMMAND

from .crowd import PATHS, trial
from .path import Unavailable

BLIND = """\
from greeter_core import ServerConnection
from greeter_trio._cli import main
ServerConnection.data_in_flight = ServerConnection.handle_timeout
raise SystemExit(main())
"""
"""The command, with a server that does not know what its peers' kernels have acknowledged."""


def main() -> None:
    for seed in map(int, sys.argv[1:] or ["1"]):
        for name, impairment in PATHS.items():
            for server, command in (
                ("asks the kernel", COMMAND),
                ("does not ask", (sys.executable, "-c", BLIND)),
            ):
                began = time.monotonic()
                outcomes, packets = trial(impairment, seed=seed, command=command)
                took = f"{time.monotonic() - began:.1f} s"
                head = f"seed {seed}, {name}, the server {server}, {took}:"
                print(head, dict(outcomes), packets, flush=True)


if __name__ == "__main__":
    try:
        main()
    except Unavailable as exc:
        sys.exit(str(exc))
