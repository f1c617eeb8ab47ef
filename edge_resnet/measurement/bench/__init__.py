"""Latency and throughput of an artifact by MLPerf's scenarios, with the conditions under which they were measured.

Does not know about accuracy. Loads the library of the measured backend only.
"""
