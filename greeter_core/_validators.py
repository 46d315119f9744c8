"""Checks of what the caller gives: configured values (attrs fields), and times."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from ._errors import LocalProtocolError

if TYPE_CHECKING:
    import attrs

Validator: TypeAlias = "Callable[[object, attrs.Attribute[Any], Any], None]"


def must_be(
    what: str, kind: type | tuple[type, ...], is_right: Callable[[Any], bool] = lambda _: True
) -> Validator:
    """Return a validator that raises `LocalProtocolError` for a wrong value, saying what is right.

    Right is an instance of `kind` for which `is_right` is true; `True` and `False` never are.
    """

    def validate(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, kind) or not is_right(value):
            raise LocalProtocolError(f"{attribute.name} must be {what}, not {value!r}")

    return validate


_LONGEST = math.nextafter(math.inf, 0)  # the largest float; a longer time could not be added to one


def checked_time(now: float) -> float:
    """Return a time that a caller gave, if it is one; raise `LocalProtocolError` otherwise."""
    if isinstance(now, (float, int)) and -_LONGEST <= now <= _LONGEST:
        return now
    raise LocalProtocolError(f"now must be a finite number of seconds, not {now!r}")


# NaN is in neither of these ranges.
delay: Validator = must_be(
    "a finite number of seconds, 0 or more", (int, float), lambda value: 0 <= value <= _LONGEST
)
timeout: Validator = must_be(
    "a number of seconds, more than 0 (math.inf for never)",
    (int, float),
    lambda value: 0 < value <= _LONGEST or value == math.inf,
)
