"""One module per command. Each exports one `click.Command` under the command's own name."""
