from align_dsl.commands import main

if __name__ == "__main__":
    main()
