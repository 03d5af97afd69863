"""All that is derived from the contract's descriptors: the codec, the validator, the defaults and the routes."""
