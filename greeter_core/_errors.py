"""What the caller can do wrong."""


class LocalProtocolError(ValueError):
    """The caller asked for something that the protocol or the configuration does not allow.

    It is raised before anything has changed, so the connection can still be used. (A name that
    comes too late may have let the time pass: PROTOCOL.md, E2.) What the *peer* does wrong is never
    an exception, but an event.
    """
