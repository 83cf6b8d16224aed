"""`python -m finetune.toy OUT --seed 0`: toy data sets and toy benchmarks, made once."""

from __future__ import annotations

from finetune.toy.commands import rendering_command
from finetune.toy.write import make_toy

main = rendering_command(make_toy, "Render toy instruction data and toy benchmark files into OUT.")

if __name__ == "__main__":
    main()
