"""How far a run is, as people see it: a live board on a terminal or in a notebook, a line a minute elsewhere.

Runs call the functions of a `Progress`; the board keeps what they say, each kind in a section of its own.
"""
