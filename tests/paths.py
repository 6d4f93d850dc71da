"""Where the tests find the repository, and a text of some length."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROSE = ROOT / "tests" / "data" / "harbour.txt"
