"""What goes to a device: data, no code."""
