"""The command `loragate-server`."""
