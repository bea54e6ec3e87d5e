"""Real runs on the embedded base that go wrong on purpose, and their recorded curves (`python -m tools.curves`)."""
