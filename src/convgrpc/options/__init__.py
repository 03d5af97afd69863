"""The options that the contract is annotated with."""
