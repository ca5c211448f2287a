"""One module for each image server: where its requests name adapters."""
