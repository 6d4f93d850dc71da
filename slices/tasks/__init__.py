"""Evaluation tasks with a right answer: multiple choice, generation, code, and lm-evaluation-harness."""
