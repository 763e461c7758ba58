"""Videos to batches: list the files, read frames, sample, crop, mask. Needs no Keras.

Import from the modules: `files`, `decode`, `sampling`, `augment`, `pipeline`, `skipped`.
"""
