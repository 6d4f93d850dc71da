"""What produces every published figure."""
