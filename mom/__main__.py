"""`python -m mom` is `mom`."""

from mom.cli import main

main()
