"""The jobs of a configuration, and the folder that each lives in.

    base/                          the start, where it is trained here
    ckpts/<name>/                  one ingredient each, under its name only when complete
    ckpts/<name>-step500/          the model as it was then, with `keep_every: 500`
    ckpts.finetune/<name>/         the job's folder (`start` is the start's):
        job.json                   what is to be trained: the whole of it, so that one command trains it anywhere
        state.json                 how far it is (`State`), rewritten whole
        log.txt                    the output of the process, of every attempt behind a line of its own
        place.json                 where the last attempt runs, and by which command (`finetune/launching/executors`)
        loss.jsonl                 the losses of all steps, and those on held-out rows
        checkpoints/               to resume from
        best-step40/               the best model so far, with `keep_best`
        part/                      the ingredient while it is written

One job is one process (or one per GPU): `python -m finetune.training.job ckpts.finetune/<name>`. Its exit code is 0
when the ingredient is complete, 1 when it failed (state.json says why), 143 or 130 when a signal stopped it after a
checkpoint.

Read in this order: `documents`, `job`, `plan`, `progress`.
"""

from __future__ import annotations

from finetune.jobs.documents import (
    STAMP,
    JobDigests,
    JobDocument,
    Json,
    Stamp,
    has_digest,
    read_job,
    read_stamp,
    stamp_time,
)
from finetune.jobs.job import Job, job_command
from finetune.jobs.plan import START, at_root, plan_jobs, read_plan
from finetune.jobs.progress import (
    LEFT_OUT,
    LOSSES,
    SO_IT_WAS,
    JobStatus,
    State,
    attempt_end,
    divide_log,
    read_state,
    rows_lost,
    write_state,
)

__all__ = [
    "LEFT_OUT",
    "LOSSES",
    "SO_IT_WAS",
    "STAMP",
    "START",
    "Job",
    "JobDigests",
    "JobDocument",
    "JobStatus",
    "Json",
    "Stamp",
    "State",
    "at_root",
    "attempt_end",
    "divide_log",
    "has_digest",
    "job_command",
    "plan_jobs",
    "read_job",
    "read_plan",
    "read_stamp",
    "read_state",
    "rows_lost",
    "stamp_time",
    "write_state",
]
