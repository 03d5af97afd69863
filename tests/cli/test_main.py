"""The command line, in processes of its own."""

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import fields
from pathlib import Path

import grpc
import httpx
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from convgrpc import __version__
from convgrpc.settings import Address, Settings

COMMAND = [sys.executable, "-W", "error", "-m", "convgrpc"]
STARTED = re.compile(r"convgrpc (\S+): gRPC (\S+), REST https?://(\S+)/v1, database (\S+?)(?:, metrics \S+)?\n")
FREE = ["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"]
TIMEOUT = 30


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env={**os.environ, **environment},
    )


@contextmanager
def serving(
    *arguments: str, command: Sequence[str] = COMMAND, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], re.Match[str]]]:
    """Runs `convgrpc serve` while the context lasts; gives the process and its start line."""
    env = {**os.environ, **environment}
    with subprocess.Popen(
        [*command, "serve", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    ) as process:
        try:
            assert process.stdout
            started = STARTED.fullmatch(process.stdout.readline())
            assert started, process.communicate(timeout=TIMEOUT)
            yield process, started
        finally:
            process.kill()


def test_the_start_line_tells_version_addresses_and_database(tmp_path: Path) -> None:
    """One line, on which a script can rely, once everything is served."""
    db = str(tmp_path / "a.db")
    with serving("--db", db, *FREE) as (_, started):
        version, address, http, database = started.groups()
        assert (version, database) == (__version__, db)
        assert httpx.get(f"http://{http}/healthz").status_code == 200
        assert run("health", "--grpc", address).stdout == "SERVING\n"


def test_all_addresses_are_those_of_ipv4_too(tmp_path: Path) -> None:
    """By both transports."""
    with serving("--db", str(tmp_path / "a.db"), "--grpc", "[::]:0", "--http", "[::]:0", "--insecure") as (_, started):
        _, grpc_address, http_address, _ = started.groups()
        for host in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{host}:{http_address.rpartition(':')[2]}/livez").status_code == 200
            assert run("health", "--grpc", f"{host}:{grpc_address.rpartition(':')[2]}").stdout == "SERVING\n"


def test_paths_are_those_of_the_folder_where_the_script_is_called(tmp_path: Path) -> None:
    """Whoever makes keys there, for a database there, means that one."""
    scripts, here = tmp_path / "checkout" / "scripts", tmp_path / "here"
    for folder in (scripts, here):
        folder.mkdir(parents=True)
    script = Path(__file__).parents[2] / "scripts" / "serve"
    shutil.copy(script, scripts)
    (scripts / "environment").write_text(f"#!/bin/sh\necho {sys.executable}\n")
    (scripts / "environment").chmod(0o755)
    (tmp_path / "link").symlink_to(scripts / "serve")
    command = ["env", "-C", str(here), str(tmp_path / "link")]
    with subprocess.Popen([*command, "--db", "a.db", *FREE], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert STARTED.fullmatch(process.stdout.readline())
        process.kill()
    assert (here / "a.db").exists()


def test_a_server_with_a_certificate_is_asked_for_its_health_by_tls(tmp_path: Path) -> None:
    """By whoever trusts the authority, and shows a certificate where that is asked for."""
    authority = trustme.CA()
    pair = authority.issue_cert("127.0.0.1")
    ca, cert, key = (str(tmp_path / name) for name in ("ca.pem", "cert.pem", "key.pem"))
    authority.cert_pem.write_to_path(ca)
    pair.cert_chain_pems[0].write_to_path(cert)
    pair.private_key_pem.write_to_path(key)
    tls = ["--tls-cert", cert, "--tls-key", key]
    with serving("--db", str(tmp_path / "a.db"), *FREE, *tls, "--tls-client-ca", ca) as (_, started):
        assert "REST https://" in started[0]
        assert run("health", "--grpc", started[2], "--tls-ca", ca, *tls).stdout == "SERVING\n"
        assert run(
            "health", "--grpc", started[2], CONVGRPC_TLS_CA=ca, CONVGRPC_TLS_CERT=cert, CONVGRPC_TLS_KEY=key
        ).stdout
        empty = tmp_path / "empty.pem"
        empty.touch()
        own = {"CONVGRPC_HEALTH_TLS_CERT": cert, "CONVGRPC_HEALTH_TLS_KEY": key}
        servers = {"CONVGRPC_TLS_CA": ca, "CONVGRPC_TLS_CERT": str(empty), "CONVGRPC_TLS_KEY": str(empty)}
        assert run("health", "--grpc", started[2], **servers, **own).stdout == "SERVING\n"
        refused = [
            (["--tls-ca", ca], "UNAVAILABLE: "),
            ([], "UNAVAILABLE: "),
            (tls, "--tls-ca"),
            (["--tls-ca", str(empty), *tls], "UNAVAILABLE: "),
            (["--tls-ca", ca, "--tls-cert", "/no.pem", "--tls-key", key], "/no.pem"),
            (["--tls-ca", ca, "--tls-cert", cert], "go together"),
            (["--tls-ca", ca, "--tls-key", key], "go together"),
        ]
        for arguments, why in refused:
            ended = run("health", "--grpc", started[2], *arguments)
            assert (ended.returncode, ended.stdout) == (1, "")
            assert why in ended.stderr
            assert "Traceback" not in ended.stderr


def test_the_health_of_a_server_is_asked_by_the_name_in_its_certificate(tmp_path: Path) -> None:
    """Also at an address that is not in it, as from within a container."""
    authority = trustme.CA()
    pair = authority.issue_cert("convgrpc.example.com")
    ca, cert, key = (str(tmp_path / name) for name in ("ca.pem", "cert.pem", "key.pem"))
    authority.cert_pem.write_to_path(ca)
    pair.cert_chain_pems[0].write_to_path(cert)
    pair.private_key_pem.write_to_path(key)
    with serving("--db", str(tmp_path / "a.db"), *FREE, "--tls-cert", cert, "--tls-key", key) as (_, started):
        named = run("health", "--grpc", started[2], "--tls-ca", ca, "--tls-server-name", "convgrpc.example.com")
        assert named.stdout == "SERVING\n"
        assert run("health", "--grpc", started[2], "--tls-ca", ca).returncode == 1


def test_every_flag_has_a_twin_in_the_environment(tmp_path: Path) -> None:
    """`CONVGRPC_DB` is `--db`, and so on for every setting; a flag goes before its twin."""
    shown = run("serve", "--help", COLUMNS="200").stdout
    for setting in fields(Settings):
        assert f"--{setting.name.replace('_', '-')}" in shown
        assert f"CONVGRPC_{setting.name.upper()}" in shown
    db = str(tmp_path / "b.db")
    environment = {"CONVGRPC_DB": "/nowhere/c.db", "CONVGRPC_GRPC": "127.0.0.1:0", "CONVGRPC_HTTP": "127.0.0.1:0"}
    with serving("--db", db, **environment) as (_, started):
        assert started[4] == db


def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    """The same database serves again."""
    arguments = ["--db", str(tmp_path / "a.db"), *FREE]
    with serving(*arguments) as (process, started):
        conversation = httpx.post(f"http://{started[3]}/v1/conversations", json={"metadata": {"a": "b"}}).json()
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0
    with serving(*arguments) as (_, started):
        assert httpx.get(f"http://{started[3]}/v1/conversations/{conversation['id']}").json() == conversation


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_lets_what_is_in_flight_finish(tmp_path: Path, number: signal.Signals) -> None:
    """Health turns NOT_SERVING, the request that is under way is answered, and the exit code is 0."""
    with serving("--db", str(tmp_path / "a.db"), *FREE) as (process, started):
        host, _, port = started[3].rpartition(":")
        body = b'{"metadata":{"a":"b"}}'
        with socket.create_connection((host, int(port))) as client, grpc.insecure_channel(started[2]) as channel:
            client.settimeout(TIMEOUT)
            head = f"POST /v1/conversations HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
            client.sendall(head.encode() + b"\r\n\r\n" + body[:5])
            health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
            assert next(health).status == health_pb2.HealthCheckResponse.SERVING
            process.send_signal(number)
            assert next(health).status == health_pb2.HealthCheckResponse.NOT_SERVING
            health.cancel()
            client.sendall(body[5:])
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert process.wait(TIMEOUT) == 0
        assert process.stderr
        assert process.stderr.read() == ""


HALF_A_REQUEST = b"POST /v1/conversations HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{"


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    """However long the grace is, and whatever is in flight."""
    arguments = ["--db", str(tmp_path / "a.db"), *FREE, "--shutdown-grace", "600"]
    with serving(*arguments) as (process, started), grpc.insecure_channel(started[2]) as channel:
        host, _, port = started[3].rpartition(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(HALF_A_REQUEST)
            health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
            assert next(health).status == health_pb2.HealthCheckResponse.SERVING
            process.send_signal(signal.SIGTERM)
            assert next(health).status == health_pb2.HealthCheckResponse.NOT_SERVING
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) == 128 + signal.SIGTERM


def test_a_stream_that_watches_the_health_does_not_keep_the_server(tmp_path: Path) -> None:
    """It learns that the server stops, and then it ends, however long the grace is."""
    arguments = ["--db", str(tmp_path / "a.db"), *FREE, "--shutdown-grace", "600"]
    with serving(*arguments) as (process, started), grpc.insecure_channel(started[2]) as channel:
        health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(health).status == health_pb2.HealthCheckResponse.SERVING
        process.send_signal(signal.SIGTERM)
        assert next(health).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert process.wait(TIMEOUT) == 0


def test_a_request_that_is_not_whole_when_the_grace_is_over_is_told_so(tmp_path: Path) -> None:
    """With the envelope of any error, and without a traceback in the log."""
    arguments = ["--db", str(tmp_path / "a.db"), *FREE, "--shutdown-grace", "0.1"]
    with serving(*arguments) as (process, started):
        host, _, port = started[3].rpartition(":")
        with socket.create_connection((host, int(port))) as client:
            client.settimeout(TIMEOUT)
            client.sendall(HALF_A_REQUEST)
            # The server has it once it answers another request on another connection.
            assert httpx.get(f"http://{started[3]}/healthz").status_code == 200
            process.send_signal(signal.SIGTERM)
            # The head and the body may come apart; the server closes after them.
            answer = b"".join(iter(lambda: client.recv(10_000), b""))
        assert answer.startswith(b"HTTP/1.1 503")
        assert b'"code":"shutting_down"' in answer
        assert process.wait(TIMEOUT) == 0
        assert process.stderr
        assert "Traceback" not in process.stderr.read()


def foreign_database(folder: Path) -> str:
    path = folder / "foreign.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE other (value)")
    return str(path)


def corrupt_database(folder: Path) -> str:
    path = folder / "corrupt.db"
    path.write_bytes(b"This is no database. " * 500)
    return str(path)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (foreign_database, "convgrpc"),
        (corrupt_database, "it is not a SQLite database"),
        (lambda folder: str(folder / "nowhere" / "a.db"), "nowhere"),
        (str, "it is not a file"),
    ],
    ids=["foreign", "corrupt", "no such folder", "a folder"],
)
def test_a_database_that_cannot_be_used_is_an_error_in_one_line(tmp_path: Path, make: object, says: str) -> None:
    """No traceback, and the path is named."""
    assert callable(make)
    db = make(tmp_path)
    ended = run("serve", "--db", db, *FREE)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch(r"convgrpc: .*\n", ended.stderr)
    assert db in ended.stderr
    assert says in ended.stderr


@pytest.mark.parametrize("flag", ["--grpc", "--http"])
def test_a_taken_port_is_an_error_in_one_line(tmp_path: Path, flag: str) -> None:
    """No traceback, and the address is named."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = str(Address(*taken.getsockname()))
        ended = run("serve", "--db", str(tmp_path / "a.db"), *FREE, flag, address)
    assert ended.returncode == 1
    assert re.fullmatch(rf"convgrpc: cannot serve \w+ on {address}: Address already in use.*\n", ended.stderr)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--grpc", "8080"),
        ("--grpc", "localhost:http"),
        ("--http", "127.0.0.1:70000"),
        ("--http", "::1:80"),
        ("--max-message-bytes", "0"),
        ("--request-timeout", "soon"),
        ("--request-timeout", "0"),
        ("--request-timeout", "nan"),
        ("--shutdown-grace", "inf"),
        ("--nonsense", "1"),
    ],
)
def test_a_bad_flag_is_an_error_that_names_it(flag: str, value: str) -> None:
    """No traceback; exit code 2."""
    ended = run("serve", flag, value)
    assert ended.returncode == 2
    assert flag in ended.stderr
    assert "Traceback" not in ended.stderr


def test_numbers_may_be_as_large_as_they_are_meant(tmp_path: Path) -> None:
    """Many gigabytes for a project, and more calls and seconds than gRPC's own options hold."""
    arguments = ["--db", str(tmp_path / "a.db"), *FREE, "--max-project-bytes", "5000000000"]
    with serving(*arguments, "--max-calls", "2147483647", "--transfer-timeout", "1e9") as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0


def test_the_log_tells_when_the_server_starts_and_stops(tmp_path: Path) -> None:
    """Where calls are logged."""
    arguments = ["--db", str(tmp_path / "a.db"), *FREE, "--log-level", "info", "--shutdown-grace", "3"]
    with serving(*arguments) as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0
        assert process.stderr
        told = [json.loads(line)["message"] for line in process.stderr.read().splitlines()]
    assert told[-3:] == ["serving", "stopping: what is in flight has 3 seconds", "stopped"]


def test_settings_that_exclude_each_other_are_refused(tmp_path: Path) -> None:
    """What is kept untouched cannot be returned in part."""
    ended = run("serve", "--db", str(tmp_path / "a.db"), *FREE, "--unknown", "keep", "--include-policy", "strict")
    assert ended.returncode == 1
    assert "--unknown keep" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_other_machines_are_not_served_by_accident(tmp_path: Path) -> None:
    """An address that others can reach needs --insecure."""
    arguments = ["--db", str(tmp_path / "a.db"), *FREE, "--http", "0.0.0.0:0"]
    ended = run("serve", *arguments)
    assert ended.returncode == 1
    assert "--insecure" in ended.stderr
    with serving(*arguments, "--insecure") as (_, started):
        assert started[3].startswith("0.0.0.0:")


def test_health_is_an_error_where_nobody_serves() -> None:
    """Exit code 1, and the address is named."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = str(Address(*free.getsockname()))
    ended = run("health", "--grpc", address)
    assert ended.returncode == 1
    assert address in ended.stderr
    assert "Traceback" not in ended.stderr


def test_health_asks_this_machine_when_the_server_listens_on_all_addresses(tmp_path: Path) -> None:
    """So that one environment serves both commands in a container."""
    with serving("--db", str(tmp_path / "a.db"), *FREE, "--grpc", "0.0.0.0:0", "--insecure") as (_, started):
        assert run("health", CONVGRPC_GRPC=started[2]).stdout == "SERVING\n"


def test_version_is_the_packages() -> None:
    """`convgrpc version`, and `--help` of each command."""
    assert run("version").stdout == run("--version").stdout == f"{__version__}\n"
    for command in ([], ["serve"], ["health"], ["version"]):
        assert run(*command, "--help").returncode == 0
