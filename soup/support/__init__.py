"""What every package stands on: atomic files, locks, the plug-in registry, threads, text for people."""
