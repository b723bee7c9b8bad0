"""Our file formats: bytes to frozen values and back. No disk, no network, no clock."""
