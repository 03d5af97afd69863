"""The RPCs: what a call does, whatever transport it came by."""
