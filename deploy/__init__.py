"""Files for devices: data, no code."""
