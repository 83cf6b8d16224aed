"""How soups are evaluated: one harness a file, and how a checkpoint becomes something that answers."""
