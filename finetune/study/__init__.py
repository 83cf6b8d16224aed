"""`soup study`: data, pool, scores, soups and what they are compared with, for several seeds, in one table.

Read `config` (the file), `run` (all steps in order), `seed_run` (what is done for one seed), `comparisons` (what soups
are compared with), `table`.
"""
