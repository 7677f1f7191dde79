"""Kernels: the arithmetic that takes the time, on tensors alone.

Needs nothing but torch, so that it can be measured on a machine that has nothing else.
"""
