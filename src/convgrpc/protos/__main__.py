"""`python -m convgrpc.protos`: what `convgrpc protos` does, without the extra `server`."""

import argparse
import sys
from pathlib import Path

from convgrpc.protos import write

parser = argparse.ArgumentParser(prog="convgrpc.protos", description="Writes the contract's .proto files.")
parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="Where to write them; made if need be.")
try:
    write(parser.parse_args().out)
except OSError as error:
    sys.exit(f"convgrpc: {error.filename}: {error.strerror}")
