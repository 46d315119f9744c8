"""The command line: `serve`, `client`, `replay` and `demo`."""

from collections.abc import Sequence

from .client import run_client
from .demo import run_demo
from .options import ClientOptions, DemoOptions, ReplayOptions, ServeOptions, parse
from .output import flush_output, prepare_output
from .replay import run_replay
from .serve import run_server


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    prepare_output()
    try:
        match parse(argv):
            case ServeOptions() as options:
                return run_server(options)
            case ClientOptions() as options:
                return run_client(options)
            case ReplayOptions() as options:
                return run_replay(options)
            case DemoOptions() as options:
                return run_demo(options)
    finally:
        flush_output()
