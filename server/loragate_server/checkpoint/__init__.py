"""From a request of an image server to an answer: pass, or not. Knows nothing of transports."""
