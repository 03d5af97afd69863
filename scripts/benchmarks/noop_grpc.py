"""A bare server of grpc.aio on uvloop, which answers every call with the same kilobyte: `python -m
benchmarks.noop_grpc`.
"""

import grpc
import uvloop

REPLY = b"x" * 1000


class Everything(grpc.GenericRpcHandler):
    """Any method, its messages left as bytes."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        return grpc.unary_unary_rpc_method_handler(noop)


async def noop(request: bytes, context: object) -> bytes:
    return REPLY


async def main() -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Everything(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main())
