"""A conversation as a drawing (SVG), and as a table."""

from html import escape

from .diagram import End, Kind, Row
from .story import Moment, Story
from .width import shortened, width

_ROW = 22  # units from one row to the next; a character is 7.8 wide
_CHARACTER = 7.8
_TIME, _CLIENT, _SERVER, _NOTES, _WIDTH = 66, 215, 590, 730, 1010
_LABEL = 42  # characters between the lifelines


def drawing(story: Story) -> str:
    """Return the drawing, as an element of HTML."""
    height, name = (len(story.rows) + 2) * _ROW, f"drawing-{story.id}"
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-labelledby="{name}">',
        f'<title id="{name}">Sequence diagram; the table has the same rows</title>',
        *_bands(story),
        _text(_CLIENT, 0, "client", "middle", "client"),
        _text(_SERVER, 0, "server", "middle", "server"),
        _text(_TIME, 0, "ms", "end", "soft"),
        *(_life(x, height) for x in (_CLIENT, _SERVER)),
        *(_link(story, *link) for link in story.links),
    ]
    for index, moment in enumerate(story.rows, 1):
        parts.append(f'<g class="row" data-row="{index - 1}">')
        parts.append(
            f'<rect class="back" x="0" y="{index * _ROW}" width="{_WIDTH}" height="{_ROW}"/>'
        )
        parts += _row(index, moment.row)
        parts.append("</g>")
    parts.append("</svg>")
    return "".join(parts)


def table(story: Story) -> str:
    """Return a table with the same rows."""
    rows = "".join(_table_row(moment) for moment in story.rows)
    return (
        "<table><thead><tr><th>ms</th><th>Where</th><th>What</th><th>Client's TCP</th>"
        f"<th>Server's TCP</th><th>Core</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _table_row(moment: Moment) -> str:
    row = moment.row
    where = (
        row.end.value
        if row.kind in (Kind.CALL, Kind.TCP, Kind.CORE, Kind.REMARK)
        else (f"{row.end.value} → {row.end.other.value}")
    )
    cells = [
        f"{row.at * 1000:.1f}",
        where,
        f"{row.kind.value}: {row.label}" if row.label else row.kind.value,
        moment.tcp.get(End.CLIENT, ""),
        moment.tcp.get(End.SERVER, ""),
        "; ".join(row.notes),
    ]
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _row(index: int, row: Row) -> list[str]:
    parts = [_text(_TIME, index, f"{row.at * 1000:.1f}", "end", "soft")]
    label = shortened(row.label, _LABEL)
    if row.kind in (Kind.MESSAGE, Kind.EOF, Kind.SEGMENT):
        parts += _arrow(index, row, label)
    elif row.kind is Kind.REMARK:
        parts.append(_text(_CLIENT + 10, index, shortened(row.label, 95), "start", ""))
    elif row.kind in (Kind.CALL, Kind.TCP):
        style = row.end.value if row.kind is Kind.TCP else ""
        at_client = row.end is End.CLIENT
        x, anchor = (_CLIENT - 10, "end") if at_client else (_SERVER + 10, "start")
        parts.append(_text(x, index, shortened(row.label, 17), anchor, style))
    if row.notes:
        parts.append(_text(_NOTES, index, shortened("; ".join(row.notes), 35), "start", "soft"))
    return parts


def _arrow(index: int, row: Row, label: str) -> list[str]:
    style = "segment" if row.kind is Kind.SEGMENT else ""
    dotted = " assumed" if row.is_assumed else ""
    y, size = index * _ROW + _ROW / 2, width(label) * _CHARACTER
    if row.end is End.CLIENT:
        x, line = _CLIENT + 8, f"M{_CLIENT + 14 + size:.0f} {y:g}H{_SERVER - 4}"
        head = f"M{_SERVER - 2} {y:g}l-8 -4v8z"
    else:
        x, line = _CLIENT + 18, f"M{_CLIENT + 4} {y:g}h10M{_SERVER} {y:g}H{_CLIENT + 24 + size:.0f}"
        head = f"M{_CLIENT + 2} {y:g}l8 -4v8z"
    return [
        f'<path class="arrow {style}{dotted}" d="{line}"/>',
        f'<path class="head {style}" d="{head}"/>',
        _text(x, index, label, "start", style and "soft"),
    ]


def _link(story: Story, send: int, receive: int) -> str:
    from_client = story.rows[send].row.end is End.CLIENT
    x1, x2 = (_CLIENT, _SERVER) if from_client else (_SERVER, _CLIENT)
    y1, y2 = ((index + 1.5) * _ROW for index in (send, receive))
    return f'<path class="arrow link" d="M{x1} {y1}L{x2} {y2}"/>'


def _bands(story: Story) -> list[str]:
    """Mark the phases: connection, transfer, termination."""
    parts, phases = [], [moment.phase for moment in story.rows]
    for phase in dict.fromkeys(phases):
        first = phases.index(phase)
        count = phases.count(phase)
        y, height = (first + 1) * _ROW, count * _ROW
        if phase != "transfer":
            parts.append(f'<rect class="band" x="0" y="{y}" width="{_WIDTH}" height="{height}"/>')
        middle = y + height / 2
        parts.append(
            f'<text class="soft" text-anchor="middle" transform="translate({_WIDTH - 6} {middle}) '
            f'rotate(-90)">{phase if count > 4 else ""}</text>'
        )
    return parts


def _life(x: int, height: int) -> str:
    return f'<path class="life" d="M{x} {_ROW}V{height - _ROW}"/>'


def _text(x: float, index: int, text: str, anchor: str, style: str) -> str:
    y = index * _ROW + 15
    return f'<text x="{x:g}" y="{y}" text-anchor="{anchor}" class="{style}">{escape(text)}</text>'
