"""Images built from a recipe, without an engine and without privileges, to the same digest on every machine."""
