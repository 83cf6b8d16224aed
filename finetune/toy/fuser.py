"""What fuses captions for the toy family, on loopback: `python -m finetune.toy.fuser --port-file FILE`.

It speaks OpenAI's chat completions and answers the prompt that `soup data capfuse` sends, by `captions.fuse`: a rule,
no language model, and it says so by its name.
"""

from __future__ import annotations

import re

from finetune.toy.captions import fuse
from finetune.toy.commands import serving_command
from finetune.toy.rule_server import RuleServer

__all__ = ["MODEL", "FuserServer", "reply"]

MODEL = "toy-rule-fuser"
CAPTIONS = re.compile(r"Web caption: (.*?)\nModel's caption: (.*?)\n\nWrite one caption", re.DOTALL)


def reply(prompt: str) -> str | None:
    """Return the fused caption; None for a prompt without two captions."""
    captions = CAPTIONS.search(prompt)
    if captions:
        return fuse(captions[1], captions[2])
    return "Hello." if prompt == "Hello." else None


class FuserServer(RuleServer):
    """The fuser at one port of loopback; 0 for any that is free.

    Raises:
        OSError: the port is taken.
    """

    model = MODEL
    prompts = "the prompt of soup data capfuse"

    def reply(self, prompt: str) -> str | None:
        """Return the fused caption."""
        return reply(prompt)


main = serving_command(FuserServer, "Fuse captions by a rule until interrupted, or until whoever started this is gone.")

if __name__ == "__main__":
    main()
