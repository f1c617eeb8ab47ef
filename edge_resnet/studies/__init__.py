"""Studies of many networks: the experiments of He et al. 2015, and the measurements behind a report.

Only the command line and the API depend on it. Loads torch where networks are trained or built.
"""
