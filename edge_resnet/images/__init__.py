"""Images on disk and in memory: layouts, labelled sets, named data sets, preprocessing, calibration images, sanity checks.

Does not know about networks and backends. Loads numpy and Pillow; torchvision only for data sets that it downloads.
"""
