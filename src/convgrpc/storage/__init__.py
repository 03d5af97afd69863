"""The interface of storage, and what implements it."""
