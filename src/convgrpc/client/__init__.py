"""Clients of the service: every RPC of the contract as a method of one object."""

from convgrpc.client.async_client import AsyncClient
from convgrpc.client.client import Client

__all__ = ["AsyncClient", "Client"]
