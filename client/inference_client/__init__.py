"""Classify images on an inference server, with one class.

>>> from inference_client import *
>>> target_server = Classify("http://localhost:8080")

A call, ``target_server(["a.jpg", "b.jpg"])``, answers ``(results, status_code)``; see :class:`Classify`.
``StreamError``, which only ``Classify.stream`` raises, is imported by its name.
"""

from inference_client.classify import Classify
from inference_client.errors import StreamError as StreamError

__all__ = ["Classify"]
