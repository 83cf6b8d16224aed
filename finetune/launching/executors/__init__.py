"""Where jobs run: one protocol, and three executors behind it, each in a file of its own.

    local    this host's GPUs, shared out as slots, or processes where it has none
    slurm    an array of commands, by submitit
    ray      tasks of a Ray cluster around the same commands

An executor knows of commands and job folders, and nothing of models. All executors need the job folders where the jobs
run: on several machines, a file system that they share.

Read `protocol` (tasks, and what an executor does with them), `registry` (the executor of a name), `liveness` (whether a
job still runs), `local`, `slurm`, `ray`, and what these share: `processes` of a host, and `attempt`, a job's command on
another machine.
"""
