"""Pictures of clips, charts and reconstructions."""

from typing import Literal, get_args

Statistics = Literal["seamless", "visible", "oracle"]  # see `patch_statistics`
STATISTICS = get_args(Statistics)
