"""`python -m convgrpc`."""

from convgrpc.cli import main

main()
