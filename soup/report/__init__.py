"""What people read: tables of a run, listings, what a checkpoint holds."""
