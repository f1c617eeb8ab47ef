"""Latency and throughput of an artifact by MLPerf's scenarios, with the conditions that they were measured under.

Knows no accuracy. Loads the backend that is measured.
"""
