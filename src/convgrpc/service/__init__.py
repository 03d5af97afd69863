"""The service: the RPCs, the chain every call passes, and the servers in front of it."""
