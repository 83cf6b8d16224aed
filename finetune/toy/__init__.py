"""Toy instruction data and toy benchmarks, rendered with Pillow: `python -m finetune.toy OUT --seed 0`.

`render` draws a scene, `tasks` asks about it, `write` lays out data sets and benchmark files.
"""

from finetune.toy.tasks import SKILLS, Row
from finetune.toy.write import make_toy

__all__ = ["SKILLS", "Row", "make_toy"]
