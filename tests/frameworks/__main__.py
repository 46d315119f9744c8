"""Print the table of the adapters: `python -m tests.frameworks`."""

import sys

from .adapters import table

sys.stdout.write(table())
