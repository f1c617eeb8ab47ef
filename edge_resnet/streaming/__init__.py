"""Frames to predictions to sinks: sources, cameras that reconnect, batching, smoothing, the web page.

Knows nothing of how a network was made. Loads OpenCV, a web server or an MQTT client only where one is asked for.
"""
