"""Classify images on an inference server, with one class.

>>> from inference_client import *
>>> target_server = Classify("http://localhost:8080")

A call, ``target_server(["a.jpg", "b.jpg"])``, answers ``(results, status_code)``; see :class:`Classify`.
"""

from inference_client.classify import Classify

__all__ = ["Classify"]
