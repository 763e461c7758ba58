"""Data pipeline, from video files to batches. Does not need Keras.

Import from the modules: `pipeline` for pretraining, `labelled` for fine-tuning and `view_dataset` for
evaluation. They build on `files`, `decode`, `sampling`, `skipped` and `stream`, and on the transforms in
`augment`, `finetune_augment`, `rand_augment`, `mixing` and `views`.
"""
