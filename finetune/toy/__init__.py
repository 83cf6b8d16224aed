"""Toy instruction data and toy benchmarks, rendered with Pillow: `python -m finetune.toy OUT --seed 0`.

`render` draws a scene, `tasks` asks about it, `gallery` keeps tests and training apart, `benchmarks` lays questions out
in the schemas of the eight benchmarks, `write` makes the files. `judge` grades answers by a rule.

`python -m finetune.toy.road OUT` makes what points.sh needs more: `captions`, `places` (points, boxes, interfaces) and
`videos`; `fuser` fuses captions by a rule.
"""

from __future__ import annotations

from finetune.toy.tasks import SKILLS, Scene
from finetune.toy.write import make_toy

__all__ = ["SKILLS", "Scene", "make_toy"]
