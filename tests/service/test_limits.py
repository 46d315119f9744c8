"""The values of `Limits` and `Settings`."""

import itertools
import math
from typing import Any

import attrs
import pytest

from greeter_core import LocalProtocolError, ServerConfig
from greeter_trio import Limits, WhenFull
from greeter_trio._service.settings import Settings

TIMEOUTS = ("handshake_timeout", "send_timeout", "grace")


WRONG: dict[str, tuple[tuple[str, ...], tuple[object, ...]]] = {
    "a number of seconds, more than 0 (math.inf for never)": (
        TIMEOUTS,
        (0, -1, math.nan, True, "1", None),
    ),
    "a finite number of seconds, 0 or more": (
        ("drain_delay",),
        (-1, math.nan, math.inf, True, "1", None),
    ),
    "a whole number, 1 or more": (("max_connections",), (0, -1, 1.0, math.inf, True, "1", None)),
    "WhenFull.WAIT or WhenFull.REJECT": (("when_full",), ("wait", None)),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_limits_raise_with_name_and_value(what: str) -> None:
    names, values = WRONG[what]
    for name, value in itertools.product(names, values):
        with pytest.raises(LocalProtocolError) as caught:
            Limits(**dict[str, Any]({name: value}))
        assert str(caught.value) == f"{name} must be {what}, not {value!r}"
    assert issubclass(LocalProtocolError, ValueError)


def test_bounds_are_inclusive_and_timeouts_may_be_infinite() -> None:
    timeouts: dict[str, Any] = dict.fromkeys(TIMEOUTS, math.inf)
    limits = Limits(max_connections=1, drain_delay=0, **timeouts)
    assert attrs.astuple(limits) == (1, WhenFull.WAIT, math.inf, math.inf, 0, math.inf)


def test_defaults() -> None:
    limits = Limits(
        max_connections=10_000,
        when_full=WhenFull.WAIT,
        handshake_timeout=10,
        send_timeout=30,
        drain_delay=0,
        grace=15,
    )
    assert limits == Limits()
    assert Settings() == Settings(
        config=ServerConfig(), limits=limits, ssl_context=None, proxy_protocol=False
    )


@pytest.mark.parametrize("frozen", [Limits(), Settings()], ids=["Limits", "Settings"])
def test_limits_and_settings_are_frozen(frozen: object) -> None:
    for name in attrs.fields_dict(type(frozen)):  # type: ignore[arg-type]
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(frozen, name, getattr(frozen, name))
