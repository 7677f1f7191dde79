"""Arithmetic on tensors alone: what is hot, and knows nothing of models, cards or recipes.

Needs nothing but torch, so that it can be measured on a machine that has nothing else.
"""
