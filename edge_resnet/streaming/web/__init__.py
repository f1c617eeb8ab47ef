"""A page and an API on a running classifier, over HTTP. Knows nothing of cameras and networks: it shows what it is handed."""

from edge_resnet.streaming.web.sink import WebSink

__all__ = ["WebSink"]
