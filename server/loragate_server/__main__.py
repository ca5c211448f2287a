"""`python -m loragate_server` is the command `loragate-server`."""

from loragate_server.cli import main

if __name__ == "__main__":
    main()
