"""The state machines: every state with everything that can happen, in the tables and in fact."""

import enum
import itertools
import math

import pytest

from greeter_core import ClientState, ServerState
from greeter_core._states import Input
from tests.support.virtual import LINES, Client, Server
from tests.support.words import ADA, BOB, GOODBYE, PROMPT, TOO_SLOW, WELCOME

from .state_docs import PROTOCOL, TABLES, inputs_of, write

ROLES: dict[str, type[enum.Enum]] = {"server": ServerState, "client": ClientState}
roles = pytest.mark.parametrize("role", ROLES)


def table(role: str) -> dict[str, dict[str, str]]:
    """Return the program's table by names: what each thing that happens leads to, by state."""
    return {
        state.name: {what.value: target.name for what, target in row.items()}
        for state, row in TABLES[role].items()
    }


# The tables


def test_protocol_text_shows_the_tables() -> None:
    text = PROTOCOL.read_text("utf-8")
    assert write(text) == text


def test_state_knows_whether_it_is_open_or_ended() -> None:
    for state in (*ServerState, *ClientState):
        assert state.is_ended == (state.name == "ENDED")
        assert state.is_open == (state.name not in ("CLOSING", "ENDED"))
    assert len({*ServerState, *ClientState}) == 9


def test_every_input_has_an_entry() -> None:
    assert {what for rows in TABLES.values() for what in inputs_of(rows)} == {*Input}


@roles
def test_table_is_a_state_machine(role: str) -> None:
    """Every state can be reached; CLOSING leads only to ENDED, and nothing out of it [E4, S8.2]."""
    rows = table(role)
    assert list(rows) == [state.name for state in ROLES[role]]
    for state, row in rows.items():
        assert set(row.values()) <= {*rows} - {state}
    assert rows["ENDED"] == {}
    assert set(rows["CLOSING"].values()) == {"ENDED"}

    def reachable(state: str) -> set[str]:
        found = {state}
        while more := {new for old in found for new in rows[old].values()} - found:
            found |= more
        return found

    assert reachable(next(iter(rows))) == set(rows)
    assert all("ENDED" in reachable(state) for state in rows)


# In fact: how each state is entered, and how each thing is made to happen

WORDS = {
    "`exit`": b"exit\n",
    "a name too long": b"123456",
    "WELCOME": WELCOME,
    "PROMPT": PROMPT,
    "HELLO": BOB,
    "GOODBYE, the answer to `exit`": GOODBYE,
    "GOODBYE, before that": GOODBYE,
    "SORRY": TOO_SLOW,
    "any other words": b"nonsense",
}
HEARD_IN = {
    "CONNECTED": b"",
    "WELCOMED": WELCOME,
    "PROMPTED": WELCOME + PROMPT + ADA + PROMPT,
    "GREETED": WELCOME + PROMPT + ADA,
    "CLOSING": GOODBYE,
    "ENDED": b"nonsense",
}


def server_in(state: str, what: str) -> Server:
    """Return a server in this state, at 1, to which that can happen (if it is full, on open)."""
    server = Server(
        LINES,
        max_name_size=5,
        idle_timeout=5 if what == "idle is due" else math.inf,
        max_lifetime=5 if what == "lifetime is due" else math.inf,
        linger=4 if what == "linger is due" else 1000,
        full=what == "the server is full",
    )
    server.waits(1)
    match state:
        case "CLOSING":
            server.hears(b"exit\n")
        case "ENDED":
            server.loses_connection()
    return server


def client_in(state: str, what: str) -> Client:
    """Return a client in this state, at 1, to which that can happen.

    `Bob` is unanswered, so that GOODBYE does not answer `exit`, unless it is to do so.
    """
    client = Client(
        LINES,
        reply_timeout=5 if what == "reply is due" else math.inf,
        linger=4 if what == "linger is due" else 1000,
    )
    client.asks(b"Ada")
    if what == "GOODBYE, the answer to `exit`":
        client.asks_exit()
    else:
        client.asks(b"Bob")
    client.waits(1)
    if HEARD_IN[state]:
        client.hears(HEARD_IN[state])
    return client


@pytest.mark.parametrize(
    ("role", "state", "what"),
    [
        (role, state, what.value)
        for role in ROLES
        for state, what in itertools.product(table(role), inputs_of(TABLES[role]))
        if (state, what) not in {("CONNECTED", Input.GOODBYE), ("WELCOMED", Input.GOODBYE)}
    ],  # nothing is sent yet that these could answer
)
def test_state_changes_as_the_table_says(role: str, state: str, what: str) -> None:
    """Without an entry it stays, unless it is a word for a client: then that is any other word.

    [C1.1, C1.2, C1.3, C6.1, S8.1, S8.2, S8.3, S12.1]
    """
    driven = server_in(state, what) if role == "server" else client_in(state, what)
    assert driven.connection.state.name == state or what == "the server is full"
    if what in WORDS:
        driven.hears(WORDS[what])
    elif what == "told to shut down":
        driven.shuts_down()
    elif what == "the peer's EOF":
        driven.hears_eof()
    elif what == "connection lost":
        driven.loses_connection()
    else:  # a timer, due at 5 where it runs
        driven.waits(50)
    row = table(role)[state]
    other_word = row.get("any other words") if what in WORDS else None
    assert driven.connection.state.name == (row.get(what) or other_word or state)
