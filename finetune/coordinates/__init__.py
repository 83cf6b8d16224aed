"""Points and boxes in texts: what a data set or a model writes is declared, read, and written in any other way.

Read `regions.py` (a point, a box, a text with both), then `conventions.py` (the unit and the spelling by name), then
`spellings.py` (the brackets, tags and JSON of each family).
"""
