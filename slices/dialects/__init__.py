"""What llama.cpp calls each family's tensors and settings: one table and one description a file."""
