"""`soup run`: data, pool, scores, soups and what they are compared with, for several seeds, in one table.

Read `config` (what the file says), `run` (the story), `comparisons` (what soups are compared with), `table`.
"""
