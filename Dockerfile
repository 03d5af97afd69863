FROM python:3.13-slim AS build

WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && python -m venv /opt/convgrpc \
    && /opt/convgrpc/bin/pip install --no-cache-dir "$(echo /wheels/convgrpc-*.whl)[server,tokens,files]"

FROM python:3.13-slim

COPY --from=build /opt/convgrpc /opt/convgrpc
# A number, so that Kubernetes can tell that it is not root.
RUN install --directory --owner=10001 --group=10001 /data
USER 10001:10001
VOLUME /data
# SQLite puts large temporary files where it may write; the root file system may be read-only.
ENV PATH=/opt/convgrpc/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SQLITE_TMPDIR=/data \
    CONVGRPC_DB=/data/convgrpc.db \
    CONVGRPC_GRPC=0.0.0.0:50051 \
    CONVGRPC_HTTP=0.0.0.0:8080
EXPOSE 50051 8080
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s CMD ["convgrpc", "health"]
ENTRYPOINT ["convgrpc"]
# It serves on all addresses of its container, and hence not without a key.
CMD ["serve"]
