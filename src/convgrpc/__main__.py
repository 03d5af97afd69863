"""`python -m convgrpc`."""

from convgrpc.cli.main import main

main()
