"""The public names, and `python -m greeter_trio`."""

import runpy
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

import greeter_trio


def test_the_public_names() -> None:
    assert greeter_trio.__all__ == sorted(set(greeter_trio.__all__))
    assert dir(greeter_trio) == greeter_trio.__all__
    for name in greeter_trio.__all__:
        assert getattr(greeter_trio, name).__doc__
    with pytest.raises(AttributeError, match=r"module 'greeter_trio' has no attribute 'Greetre'"):
        greeter_trio.Greetre  # type: ignore[attr-defined]  # noqa: B018
    promised = {"ConversationFailed", "Greeter", "drive", "open_greeter", "serve_greeter"}
    assert promised <= set(greeter_trio.__all__)


@pytest.mark.parametrize(
    ("before", "then"),
    [(signal.default_int_handler, signal.SIG_DFL), (signal.SIG_IGN, signal.SIG_IGN)],
    ids=["default", "ignored"],
)
def test_the_package_can_be_run(
    monkeypatch: pytest.MonkeyPatch, before: Callable[..., object], then: signal.Handlers
) -> None:
    """Until Trio takes Ctrl-C it ends the process, unless the parent has had it ignored."""
    monkeypatch.setattr(sys, "argv", ["greeter", "--version"])
    usual = signal.signal(signal.SIGINT, before)
    try:
        with pytest.raises(SystemExit, match="0"):
            runpy.run_module("greeter_trio", run_name="__main__")
        assert signal.getsignal(signal.SIGINT) is then
        runpy.run_module("greeter_trio.__main__", run_name="imported")  # which runs nothing
    finally:
        signal.signal(signal.SIGINT, usual)


def test_importing_the_package_is_quick() -> None:
    """So there is hardly a moment in which Ctrl-C is a traceback; a name is imported when asked."""
    code = "import sys, greeter_trio; before = 'trio' in sys.modules; greeter_trio.drive; "
    code += "print(before, 'trio' in sys.modules, 'greeter_trio._server' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False True False\n"
