"""`python -m zbank.apps.chaos.child PARENT …`: the command `zbank …` as a process that ends when its parent does.

The parent has threads, so it cannot arrange this between fork and exec, as the launcher's supervisor does.
"""

from __future__ import annotations

import sys

from zbank.apps.supervisor import die_with


def main() -> None:
    """Run the command line after the parent's process id."""
    die_with(int(sys.argv[1]))
    from zbank.apps.cli import main as zbank

    zbank(sys.argv[2:], "zbank")


if __name__ == "__main__":
    main()
