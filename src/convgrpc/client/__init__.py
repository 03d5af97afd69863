"""Clients of the service: every RPC of the contract as a method of one object."""
