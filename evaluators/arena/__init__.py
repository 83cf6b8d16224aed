"""Which answer people prefer: candidates answer, people and LLM judges vote on pairs of answers, ratings come of it.

Read `record.py` (questions and answers on disk), `votes.py` (the file of votes), `matches.py` (which pair is shown to
whom), `server.py` (the page), then `comparisons.py`, `ratings.py` and `report.py`; `harness.py` is `--eval arena:RUN`.
"""
