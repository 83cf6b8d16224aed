"""`python -m soup`: the command line."""

from soup.cli.app import main

if __name__ == "__main__":
    main()
