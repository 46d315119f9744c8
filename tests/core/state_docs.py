"""The state tables and diagrams of PROTOCOL.md, drawn from the program's own tables.

`python -m tests.core.state_docs` writes them into PROTOCOL.md; a test fails when they are not what this draws.
"""

from pathlib import Path

from greeter_core._states import CLIENT_TRANSITIONS, SERVER_TRANSITIONS, State, Transitions

PROTOCOL = Path(__file__).parents[2] / "greeter_core" / "PROTOCOL.md"
TABLES: dict[str, Transitions[State]] = {"server": SERVER_TRANSITIONS, "client": CLIENT_TRANSITIONS}  # type: ignore[dict-item]
STAYS = "–"  # noqa: RUF001 - a dash, as a reader of tables expects it; nobody types it


def draw(transitions: Transitions[State]) -> str:
    """Return a table of every state with every input, and a diagram of the transitions between different states."""
    states = list(transitions)
    inputs = list(transitions[states[0]])
    lines = [
        "| what happens | " + " | ".join(f"in {state.name}" for state in states) + " |",
        "| --- |" + " --- |" * len(states),
    ]
    for what in inputs:
        cells = [transitions[state][what] for state in states]
        shown = [STAYS if new is state else new.name for state, new in zip(states, cells, strict=True)]
        lines.append(f"| {what.value} | " + " | ".join(shown) + " |")
    lines += ["", "```mermaid", "stateDiagram-v2", f"    [*] --> {states[0].name}"]
    for state in states:
        for target in states:
            causes = [what.value.strip("`") for what in inputs if transitions[state][what] is target]
            if causes and target is not state:
                lines.append(f"    {state.name} --> {target.name}: {', '.join(causes)}")
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
