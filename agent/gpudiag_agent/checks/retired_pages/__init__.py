"""Retired memory pages of GPUs before A100."""
