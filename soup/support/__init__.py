"""Helpers of all packages: atomic files, locks, free disk space, the plug-in registry, threads, text for people."""
