"""The README's picture, drawn from a recording of the demonstration's first scene.

`python -m tests.support.picture` writes it again, when the drawing has changed.
"""

from greeter_trio._show.drawing import drawing
from greeter_trio._show.story import stories

from .documents import ROOT
from .recordings import golden

FILE = ROOT / "greeter_trio" / "demo.svg"
STYLE = """
text { font: 13px ui-monospace, monospace; fill: #1c1c1a }
.soft { fill: #5c5b55 } .client { fill: #0b5e8a } .server { fill: #8a3b0b }
.arrow { stroke: #1c1c1a; stroke-width: 1.6; fill: none } .life { stroke: #5c5b55 }
.arrow.segment { stroke: #5c5b55; stroke-dasharray: 5 3 } .head.segment { fill: #5c5b55 }
.arrow.link { stroke: #cfcdc2; stroke-width: 1 } .back { fill: none } .band { fill: #f3f2ec }
svg { background: #fdfdfb }
"""


def picture() -> str:
    """Return the drawing, as a file of its own."""
    (story,) = stories(golden("demo"))
    svg = drawing(story).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    at = svg.index(">") + 1
    return f"{svg[:at]}<style>{STYLE}</style>{svg[at:]}\n"


if __name__ == "__main__":
    FILE.write_text(picture(), "utf-8")
