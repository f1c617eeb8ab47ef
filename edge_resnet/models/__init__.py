"""The networks of He et al. 2015 and their weights."""
