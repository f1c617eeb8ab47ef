"""The artifact: a folder with a network's graph, its ranges and its labels, and the engines derived from them.

Knows how it is opened with every hash checked and written whole or not at all; knows no graph and runs no engine. Loads pydantic.
"""
