"""How the embedded base is made: its text, its tokenizer, its training, its measurement."""
