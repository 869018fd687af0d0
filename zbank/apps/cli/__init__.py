"""The command line: `zbank …` and `python -m zbank.apps.cli …`.

Every command imports what it needs when it runs, so that `--help` and short commands start fast.
"""

from zbank.apps.cli.root import main

__all__ = ["main"]
