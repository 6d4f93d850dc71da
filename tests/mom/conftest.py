"""The service that some commands are tried on."""

from tests.router.conftest import cascade, embedder, fitted, serve, slices_root

__all__ = ["cascade", "embedder", "fitted", "serve", "slices_root"]  # fixtures
