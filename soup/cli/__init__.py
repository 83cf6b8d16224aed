"""The command line: parse, call one function, print. The only layer that knows all others."""
