"""The command line: parse, call, print. Each command is a module in `dlm.cli.commands`, imported when it is called."""
