"""Fuzzing of the preprocessing: bytes that reach new code, guided by coverage, and structures that cost too much.

``corpus`` holds the bytes that reached new code.
"""
