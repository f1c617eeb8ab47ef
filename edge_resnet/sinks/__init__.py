"""Where predictions go: the protocol. Knows no format and no device."""
