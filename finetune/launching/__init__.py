"""From a configuration to running jobs, and how each ended: on this host, SLURM or Ray. Trains nothing itself.

Read `survey` (what is wrong, done, to be done; `starts` and `digests` tell), `launch` (run all of them, over one of the
`executors`), `endings` and `status`; `rehearsal` with its `estimates` is `--dry-run`, `checking` is `--check`.
"""
