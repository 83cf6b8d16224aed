"""How soups are judged: one harness a file, and how a checkpoint becomes something that answers."""
