"""Masked video autoencoders with learned token sampling, as an actor/learner system on Ray."""

__version__ = "0.1.0"
