"""Fuzzing of the preprocessing: bytes that reach new code, guided by coverage, and structures that cost too much.

``corpus`` holds what the former found to reach new code.
"""
