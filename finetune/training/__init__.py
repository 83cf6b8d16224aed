"""One job, in a process of its own: from a model and rows to an ingredient.

Read `job` (the process), `train` (the story), `start`, `components` and `adapters` (the model, and what of it learns),
`feeding` and `foreign` (its rows), `trainer` with its `arguments`, `parallel`, `logs`, `space` and `checkpoints` (the
steps), `saving` (what comes out).
"""
