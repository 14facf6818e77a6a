"""`python -m renalkit` is the command line."""

from renalkit.cli import main

if __name__ == "__main__":
    main()
