"""What a name may be: asked of the core, which knows."""

from greeter_core import ClientConnection, LocalProtocolError


def problem_with(name: bytes) -> str:
    """Return why this is no name, or nothing if it is one."""
    try:
        ClientConnection(now=0.0).send_name(name, now=0.0)
    except LocalProtocolError as exc:
        return str(exc)
    return ""
