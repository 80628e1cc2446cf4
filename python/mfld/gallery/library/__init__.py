"""Shipped experiments: of each a file that describes it, and the module that makes one run and draws them all."""
