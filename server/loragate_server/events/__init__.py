"""What others are told: CloudEvents, signed, sent until they are taken or given up."""
