"""`python -m dlm` is `dlm`."""

from dlm.cli.main import main

if __name__ == "__main__":
    main()
