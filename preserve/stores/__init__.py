"""Keep files: by content, and as archives."""
