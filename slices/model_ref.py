"""Resolves MODEL: a folder, a name in `$MOM_HOME`, the demo's model, or a hub id."""

from pathlib import Path

from slices import demo_model
from slices.checkpoint import Checkpoint, open_checkpoint
from slices.errors import NotFound
from slices.home import models_home, slices_home

_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model"]


def open_model(reference: str) -> Checkpoint:
    """Open the checkpoint that MODEL refers to: its config and headers.

    Raises:
        NotFound: there is no such model.
        BadCheckpoint: as `slices.checkpoint.open_checkpoint`.
    """
    return open_checkpoint(locate(reference), reference)


def locate(reference: str) -> Path:
    """The folder (or config file) that MODEL refers to: a path, a name in `$MOM_HOME`, or a hub id.

    The demo's model is built on first use; a hub id is downloaded through huggingface_hub.

    Raises:
        NotFound: it is none of them.
    """
    path = Path(reference).expanduser()
    if path.exists():
        return path
    if "/" not in reference:
        if demo_model.is_embedded(reference):
            return demo_model.ensure(reference)
        for folder in (models_home() / reference, slices_home() / reference):
            if (folder / "config.json").is_file():
                return folder
    elif reference.count("/") == 1 and not reference.startswith((".", "/", "~")):
        return _from_hub(reference)
    raise NotFound(
        f"no model {reference!r}: expected a folder, a name in {models_home()}, "
        f"{demo_model.NAME!r}, or a hub id such as 'google/gemma-4-E4B-it'"
    )


def _from_hub(reference: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.errors import HTTPError as NetworkError  # type: ignore[attr-defined]

    try:
        return Path(snapshot_download(reference, allow_patterns=_HUB_FILES))
    except (HFValidationError, NetworkError, OSError) as error:  # offline is an OSError
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NotFound(
            f"no model {reference!r}: there is no such folder, and the download from the hub failed: {reason}"
        ) from None
