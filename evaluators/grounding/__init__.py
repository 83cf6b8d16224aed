"""Where things are in an image: boxes, points and interfaces, asked and scored here.

Read `question_files.py` (rows into questions), `scoring.py` (an answer's points), then `harness.py`.
"""
