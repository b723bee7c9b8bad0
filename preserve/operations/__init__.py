"""One file per command, one public function each."""
