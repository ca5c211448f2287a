"""The Grafana dashboard as code: `panels` says what is shown, `build` makes the JSON of it."""
