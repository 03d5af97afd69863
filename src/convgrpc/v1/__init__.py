"""The contract, as Python: messages and stubs generated from `convgrpc/v1/*.proto`."""
