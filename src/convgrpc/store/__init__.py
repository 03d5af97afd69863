"""Where conversations and items are kept."""
