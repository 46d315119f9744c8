"""The public names (`__init__.py`)."""

import greeter_trio


def test_the_public_names_are_sorted_and_there() -> None:
    """`__all__` is sorted, has no name twice, and every name in it exists and is documented."""
    assert greeter_trio.__all__ == sorted(set(greeter_trio.__all__))
    for name in greeter_trio.__all__:
        assert getattr(greeter_trio, name).__doc__


def test_the_public_names_are_what_was_promised() -> None:
    """The library's faces are the server, the client, its exception, and the driver."""
    assert {"ConversationFailed", "Greeter", "drive", "open_greeter", "serve_greeter"} <= set(
        greeter_trio.__all__
    )
