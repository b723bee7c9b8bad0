"""Find and copy images: one file per kind of place."""
