"""Fault drills for people: stop the protocol at a named point, look, break something, and watch it heal.

Nothing here is imported by an actor unless it was started with `--drills`.

`control` and `line` are what conductor and actors say to each other; `engine` is the actor's side; `conductor` and
`customer` are the hands of a drill, `script` and `stories` its words, `play` its run, `picture` what a terminal shows.
"""
