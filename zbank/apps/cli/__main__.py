"""`python -m zbank.apps.cli`: the same as `zbank`."""

from zbank.apps.cli.root import main

main(prog_name="zbank")
