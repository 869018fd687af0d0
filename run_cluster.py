"""Starts the whole cluster of one config file on this machine: `make run`, or `python run_cluster.py --help`."""

import sys


def main() -> int:
    """Hand over to zbank.apps.launcher; without Python 3.11 or the packages, say in one line what to type."""
    if sys.version_info < (3, 11):  # noqa: UP036  # whoever starts it by hand may have an older one
        sys.stderr.write("run_cluster.py needs Python 3.11 or newer; type: make run\n")
        return 2
    try:
        from zbank.apps.launcher import main as launch
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("zbank"):
            raise
        sys.stderr.write("run_cluster.py needs the package %s; type: make run\n" % error.name)  # noqa: UP031
        return 2
    return launch()


if __name__ == "__main__":
    sys.exit(main())
