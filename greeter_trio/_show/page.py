"""The page: conversations as one HTML file, which needs no network and can be read without script.

Every conversation has a drawing (SVG) and a table of the same rows. The script steps through them
and has exercises; it gets the rows as JSON. What came from the network is text everywhere: it is
escaped, the page's policy allows no script but its own, and that one makes no markup of it.
"""

import base64
import hashlib
import json
from collections.abc import Iterable
from html import escape
from importlib import resources
from string import Template

from greeter_core import TranscriptItem

from .drawing import drawing, table
from .story import Story, stories

_MOST_DRAWN = 20  # conversations that can be seen without script
_MOST_ROWS = 50_000  # of all conversations together; some 10 MB


def render_page(items: Iterable[TranscriptItem], *, title: str = "Greeter: conversations") -> str:
    """Return the page for these items of a transcript, in any order."""
    told = stories(items)
    shown: list[Story] = []
    rows = 0
    for story in told:
        rows += len(story.rows)
        if rows > _MOST_ROWS and shown:
            break
        shown.append(story)
    sections = [_section(story) for story in shown[:_MOST_DRAWN]]
    if not told:
        sections.append("<p>There is no conversation in this recording.</p>")
    if len(shown) > _MOST_DRAWN:
        more = len(shown) - _MOST_DRAWN
        sections.append(f"<p>With script, {more} more conversations can be chosen above.</p>")
    if len(told) > len(shown):
        more = len(told) - len(shown)
        sections.append(f"<p>This page has no room for {more} more conversations.</p>")
    style, script = _resource("page.css"), _resource("page.js")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return Template(_resource("page.html")).substitute(
        policy=policy,
        title=escape(title),
        style=style,
        drawings="\n".join(sections),
        data=_json([story.facts() for story in shown]),
        script=script,
    )


def _section(story: Story) -> str:
    name = f"conversation-{story.id}"
    return (
        f'<section aria-labelledby="{name}" data-id="{story.id}">'
        f'<h2 id="{name}">{escape(story.title)}</h2>'
        f'<div class="drawing">{drawing(story)}</div>'
        f"<details><summary>As a table</summary>{table(story)}</details>"
        "</section>"
    )


def _json(value: object) -> str:
    """Return JSON that cannot end the element it stands in (HTML, 4.12.1.3)."""
    text = json.dumps(value, separators=(",", ":"))  # ASCII alone
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _hash(text: str) -> str:
    """Return the source expression for an inline element with this text (CSP 3, 6.7.2)."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")
