"""What projects share fairly: threads, turns on the event loop, caches."""
