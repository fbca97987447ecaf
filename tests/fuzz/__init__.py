"""Fuzzers of everything that decodes bytes from outside, led by the code that an input reaches."""
