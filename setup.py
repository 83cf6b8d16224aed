"""The one part of the package that setup.cfg has no words for: the compiled arithmetic, soup/merging/kernels.

Where there is no compiler, soup is installed without it, and torch does the same.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from setuptools import Extension, setup

SOURCES = sorted(Path(__file__).parent.glob("soup/merging/kernels/*.[ch]"))
DIGEST = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()

setup(
    ext_modules=[
        Extension(
            "soup.merging._kernels",
            ["soup/merging/kernels/kernels.c"],
            depends=[f"soup/merging/kernels/{path.name}" for path in SOURCES],
            define_macros=[("SOUP_SOURCES", f'"{DIGEST}"')],
            # No product and sum may become one rounding: the bytes are torch's, on every machine.
            extra_compile_args=["-O3", "-std=c11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-g0"],
            optional=True,
        )
    ]
)
