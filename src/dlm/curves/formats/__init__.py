"""One module per file format; `dlm.curves.readers` finds the right one by content."""
