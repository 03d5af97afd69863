"""All that is between a socket and a handler."""
