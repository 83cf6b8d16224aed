"""The report of a run: one document of numbers, and the page, tables and files that show it."""
