"""A page and an API for a running classifier, over HTTP. Does not know about cameras or networks: it shows what it is given."""

from edge_resnet.streaming.web.sink import WebSink

__all__ = ["WebSink"]
