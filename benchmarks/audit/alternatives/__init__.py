"""What a user would take instead of loragate, measured on the same adapters."""
