"""Healing: knowledge distillation of the parent into a slice, on domain text."""
