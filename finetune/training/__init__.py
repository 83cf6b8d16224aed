"""One job, in a process of its own: from a model and rows to an ingredient.

Read `job` (the process), `train` (all steps in order), `start_model`, `components` and `adapters` (the model, and what
of it learns), `input_pipeline`, `other_families` and `packed_families` (its rows), `trainer` with its `arguments`,
`listener`, `parallel`, `logs`, `validation`, `best_model`, `disk_space` and `checkpoints` (the steps), `saving` (the
ingredient).
"""
