"""`mom serve`: every slice behind one address, until told to stop."""

from pathlib import Path

from mom import console
from router import settings
from router.serve import serve_forever


def serve(config: Path | None, host: str | None, port: int | None) -> None:
    """Serve in the foreground; command-line values go before those of serve.yaml."""
    said = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    chosen = settings.read(config)
    console.warn("starting; the first start fits the router and loads every expert")
    serve_forever(type(chosen).model_validate(chosen.model_dump() | said), _ready)


def _ready(url: str) -> None:
    console.out.print(f"serving at {url} (OpenAI API under {url}/v1); Ctrl-C stops it", soft_wrap=True)
