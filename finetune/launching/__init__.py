"""From a configuration to running jobs, and how each ended: on this host, SLURM or Ray. Trains nothing itself.

Read `job_plans` (what is wrong, done, to be done; from `start_check`, `digests` and `differences`), `launch` (run all
of them, over one of the `executors`), `outcomes` and `status`; `dry_run` with its `estimates` is `--dry-run`,
`data_check` is `--check`.
"""
