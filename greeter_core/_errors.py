"""What the caller can do wrong."""


class LocalProtocolError(ValueError):
    """The caller asked for something that the protocol or the configuration does not allow.

    It is raised before anything has changed (PROTOCOL.md, E2), so the connection can still be used. What the
    *peer* does wrong is never an exception, but an event.
    """
