"""Data pipeline, from video files to batches. Does not need Keras.

`pretraining`, `fine_tuning` and `view_dataset` (evaluation) each compose a data set: `clips` or their own
reader chooses and reads frames, a function makes a sample of them, and `batches` does the rest.

Example:
    from vmae_keras.data.synthetic import write_moving_shapes

    paths = write_moving_shapes("drawn", 4)  # four clips to try something with
"""

from typing import Literal, get_args

Sampling = Literal["dense", "uniform"]  # a window with a stride, or one frame of each segment
SAMPLINGS = get_args(Sampling)
