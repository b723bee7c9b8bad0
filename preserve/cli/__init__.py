"""argv to one operation to text or JSON to an exit code. The only room that prints or exits."""


def main() -> int:
    """Run the command line."""
    return 0
