"""The front door: command line, printing, the demo. It parses, calls and prints."""

__version__ = "0.1.0"
