"""What an architecture holds and which cuts it allows."""
