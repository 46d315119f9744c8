"""The state tables and diagrams of PROTOCOL.md, drawn from the program's own tables.

`python -m tests.core.state_docs` writes them into PROTOCOL.md; a test fails when they are not
what this draws.
"""

from pathlib import Path

from greeter_core._states import (
    CLIENT_TRANSITIONS,
    SERVER_TRANSITIONS,
    Input,
    State,
    Transitions,
)

CORE = Path(__file__).parents[2] / "greeter_core"
PROTOCOL = CORE / "PROTOCOL.md"
TABLES: dict[str, Transitions[State]] = {
    "server": SERVER_TRANSITIONS,  # type: ignore[dict-item]
    "client": CLIENT_TRANSITIONS,  # type: ignore[dict-item]
}
NO_ENTRY = "–"  # noqa: RUF001 - a dash, as a reader of tables expects it


def inputs_of(transitions: Transitions[State]) -> list[Input]:
    """Return everything that has an entry in a table, in the order of `Input`."""
    return [what for what in Input if any(what in row for row in transitions.values())]


def draw(transitions: Transitions[State]) -> str:
    """Return a table of every state with every input, and a diagram of the transitions."""
    states, inputs = list(transitions), inputs_of(transitions)
    lines = [
        "| what happens | " + " | ".join(f"in {state.name}" for state in states) + " |",
        "| --- |" + " --- |" * len(states),
    ]
    for what in inputs:
        targets = [transitions[state].get(what) for state in states]
        cells = [NO_ENTRY if target is None else target.name for target in targets]
        lines.append(f"| {what.value} | " + " | ".join(cells) + " |")
    lines += ["", "```mermaid", "stateDiagram-v2", f"    [*] --> {states[0].name}"]
    for state in states:
        for target in states:
            causes = [what.value for what in inputs if transitions[state].get(what) is target]
            if causes:
                label = " / ".join(causes).replace("`", "")
                lines.append(f"    {state.name} --> {target.name}: {label}")
    lines += [f"    {states[-1].name} --> [*]", "```"]
    return "\n".join(lines)


def write(text: str) -> str:
    """Return PROTOCOL.md's text with its tables and diagrams drawn anew."""
    for role, transitions in TABLES.items():
        begin, end = f"<!-- {role} states -->", "<!-- end -->"
        before, rest = text.split(begin)
        _, after = rest.split(end, 1)
        text = f"{before}{begin}\n\n{draw(transitions)}\n\n{end}{after}"
    return text


if __name__ == "__main__":
    PROTOCOL.write_text(write(PROTOCOL.read_text("utf-8")), "utf-8")
