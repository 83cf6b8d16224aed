"""`python -m soup`: the command line."""

from __future__ import annotations

from soup.cli.app import main

if __name__ == "__main__":
    main()
