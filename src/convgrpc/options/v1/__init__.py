"""Messages generated from `convgrpc/options/v1/*.proto`."""
