"""Measures how good a server's answers are: sends it labelled images and reports the figures, in files and on a page.

The command is ``classify-evaluate``; it needs the extra ``report``.
"""
