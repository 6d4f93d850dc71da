"""Where the benchmarks find the repository and keep their results."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"  # a text of some length that every clone holds
