"""Classify images on an inference server.

>>> from inference_client import *
>>> target_server = Classify("http://localhost:8080")

A call, ``target_server(["a.jpg", "b.jpg"])``, returns ``(results, status_code)``; see :class:`Classify`.

The star import gives exactly ``Classify``. Import the other names one by one: ``AsyncClassify``, the same for asyncio,
and ``StreamError``, which only streams raise.
"""

from inference_client.async_classify import AsyncClassify as AsyncClassify
from inference_client.classify import Classify
from inference_client.errors import StreamError as StreamError

__all__ = ["Classify"]
