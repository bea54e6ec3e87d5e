"""Workflow: what combines rooms. Each module is one job (`train`, `prompt`, `export`, `demo`); import the one you need."""
