"""A checkpoint's tokenizer, read and cut."""
