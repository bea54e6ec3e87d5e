"""dlm: turn a document into a fine-tuned language model, and prove that it got better."""

__version__ = "0.1.0"
