"""Keep files by content."""
