"""Network cameras on loopback: real servers that tests start, stop, stall and restart on their own port."""
