"""Errors of the Hugging Face hub: the request, the hub's answer and the way out."""

import contextlib
from collections.abc import Iterator
from typing import Any


class HubError(ValueError):
    """Raised when a model cannot be downloaded. States the request, the hub's answer and the way out."""


class UnreachableError(HubError):
    """Raised when there is no connection or the hub cannot answer now; `said` is only its answer."""

    def __init__(self, message: str, said: str) -> None:
        super().__init__(message)
        self.said = said


@contextlib.contextmanager
def translated(asked: Any, endpoint: str) -> Iterator[None]:
    """Convert the errors that huggingface_hub raises when the hub refuses or fails into HubError.

    Args:
        asked: Parsed handle: `handle`, `repository` and `revision`.
        endpoint: Address of the hub.
    """
    from huggingface_hub import errors

    try:
        yield
    # HTTPError is the base of the HTTP library's errors; hf_xet raises RuntimeError.
    except (errors.HTTPError, OSError, RuntimeError) as error:
        if getattr(error, "errno", None) is not None:
            raise  # a local error, such as a full disk or a read-only folder
        if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__:
            error = error.__cause__
        response = getattr(error, "response", None)
        status = response.status_code if response is not None else None
        text = str(getattr(error, "server_message", None) or error).strip() or "no text"
        said = f"{status or type(error).__name__}: {text.splitlines()[0]}"
        received = f"Received: handle={asked.handle!r}, endpoint={endpoint!r}, answer={said!r}."
        if status is None or status in (408, 429) or status >= 500:
            raise UnreachableError(
                f"The hub gave no usable answer. {received} Check the connection, or try again later.",
                said,
            ) from error
        page = f"{endpoint}/{asked.repository}"
        ways_out = {
            401: "Check the name; if it is private or gated, log in first (`hf auth login` or $HF_TOKEN).",
            403: f"Accept its terms on {page}, and log in (`hf auth login` or $HF_TOKEN).",
            404: "Check owner, name, revision and file; if it is private, log in first (`hf auth login`).",
        }
        raise HubError(
            f"The hub does not give {asked.repository} at {asked.revision}. {received} "
            f"{ways_out.get(status, f'See {page}.')}"
        ) from error
