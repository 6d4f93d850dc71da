"""The service that some commands are tried on."""

from tests.router.conftest import embedder, fitted, reader, serve, slices_root

__all__ = ["embedder", "fitted", "reader", "serve", "slices_root"]  # fixtures
