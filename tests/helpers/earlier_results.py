"""What strategies came to, as an earlier version of soup wrote it."""

from __future__ import annotations

import json


def without_key(path, key):
    """Leave a key out of each trial in the file of a search's result."""
    document = json.loads(path.read_text())
    for trial in document["trials"]:
        del trial[key]
    path.write_text(json.dumps(document))
