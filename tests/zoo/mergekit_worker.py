"""Run by mergekit's own interpreter, once for the whole zoo, as its imports take longer than a tiny merge.

Each line of stdin has the arguments of `mergekit-yaml`, as JSON; it is answered by one line: the error, or nothing.
"""

from __future__ import annotations

import json
import sys

from click.testing import CliRunner
from mergekit.scripts.run_yaml import main

for line in sys.stdin:
    error = CliRunner().invoke(main, json.loads(line)).exception
    print(" ".join(f"{type(error).__name__}: {error}".split()) if error else "", flush=True)
