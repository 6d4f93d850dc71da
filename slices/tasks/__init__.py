"""Tasks with right answers: questions to choose on, numbers and words to write, code that runs."""
