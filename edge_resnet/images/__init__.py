"""Images on disk and in memory: layouts, labelled sets, named data sets, preprocessing, and whether a set can be right.

Knows nothing of networks and backends. Loads numpy and Pillow; torchvision only where a data set of its own is named.
"""
