"""Videos to batches: list the files, read frames, sample, crop, mask or label. Needs no Keras.

Import from the modules: `pipeline` for pretraining, `labelled` for fine-tuning, `view_dataset` for
evaluation; beneath lie `files`, `decode`, `sampling`, `skipped`, `stream`, and beside `augment`,
`finetune_augment`, `rand_augment`, `mixing`, `views`.
"""
