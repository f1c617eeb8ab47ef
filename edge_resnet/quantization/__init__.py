"""INT8: images → ranges and corrections → typed graphs, each step a module of its own. Knows nothing of folders and devices."""
