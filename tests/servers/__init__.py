"""Cameras of the network on loopback: real servers that tests start, stop, stall and restart on a port of their own."""
