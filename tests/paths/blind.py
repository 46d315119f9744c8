"""The command, with a server that does not know what its peers' kernels have acknowledged (S2.7).

    python -m tests.paths.blind serve

To the core this is what an adapter that cannot tell is like.
"""

from greeter_core import ServerConnection
from greeter_trio._cli import main

if __name__ == "__main__":
    ServerConnection.data_in_flight = ServerConnection.handle_timeout  # type: ignore[method-assign]
    raise SystemExit(main())
