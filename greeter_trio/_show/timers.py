"""Which of a core's timers runs out next.

A step says when the deadline is, and not whose it is. That follows from the steps: PROTOCOL.md (T)
says when each timer starts, and with which deadline.
"""

import math

from greeter_core import ClientConfig, Framing, NamesReceived, ServerConfig, Step, StepInput

_PROMPT = b"What's your name?"


class RunningTimers:
    """Follows the timers of one connection, step by step."""

    def __init__(self, config: ServerConfig | ClientConfig) -> None:
        self._config = config
        self._pace = self._quiet = self._idle = self._lifetime = math.inf
        self._owed_since = 0.0
        self.name: str = ""
        """Whose deadline is the connection's; nothing if none runs."""
        self.prompt_is_owed: bool = False
        """Whether a server holds a PROMPT back."""

    def follow(self, step: Step) -> None:
        """Take the next step."""
        if isinstance(self._config, ServerConfig):
            self._follow_server(step, self._config)
        self.name = self._name_of(step)

    def _follow_server(self, step: Step, config: ServerConfig) -> None:
        at, quiet_was_over = step.at, self._quiet
        if step.input is StepInput.OPEN:
            self._idle, self._lifetime = at + config.idle_timeout, at + config.max_lifetime
        if step.framing is not Framing.AUTO:
            self._quiet = math.inf
        elif step.input is StepInput.DATA:
            self._quiet = at + config.quiet
        if any(isinstance(event, NamesReceived) for event in step.events):
            begins = at if step.input is StepInput.DATA else quiet_was_over  # T1
            self._idle = begins + config.idle_timeout
        if step.output:
            self.prompt_is_owed = not step.output.endswith(_PROMPT)
            self._owed_since, self._pace = at, at + config.pace
        if step.input is StepInput.IN_FLIGHT:
            self._pace = at + max(config.pace, (at - self._owed_since) / 4)  # S2.7
        if not self.prompt_is_owed:
            self._pace = math.inf
        if not step.state.is_open:
            self.prompt_is_owed = False

    def _name_of(self, step: Step) -> str:
        if step.deadline == math.inf:
            return ""
        if not step.state.is_open:
            return "linger"
        if isinstance(self._config, ClientConfig):
            return "reply"
        timers = {
            "pace": self._pace,
            "quiet": self._quiet,
            "idle": self._idle,
            "lifetime": self._lifetime,
        }
        return next((name for name, deadline in timers.items() if deadline == step.deadline), "")
