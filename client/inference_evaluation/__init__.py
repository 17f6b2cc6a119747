"""How good the answers of a server are: labelled images go through it, figures and a page come out.

The command is ``classify-evaluate``; it needs the extra ``report``.
"""
