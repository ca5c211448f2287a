"""What stopping, crashing and replicas do to answers: none is lost, none is without its record."""
