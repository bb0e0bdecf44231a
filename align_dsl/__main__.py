"""`python -m align_dsl` is `align-dsl`."""

from align_dsl.commands import main

if __name__ == "__main__":
    main()
