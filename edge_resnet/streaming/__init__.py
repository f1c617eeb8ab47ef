"""Frames to predictions to sinks: sources, cameras that reconnect, batching, smoothing, the web page.

Does not know how a network was made. Loads OpenCV, a web server or an MQTT client only if a source or sink needs it.
"""
