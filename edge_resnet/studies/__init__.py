"""Questions that take many networks: the experiments of He et al. 2015, and the measurements behind a report.

Nothing else depends on it. Loads torch where networks are trained.
"""
