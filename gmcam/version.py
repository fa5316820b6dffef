"""The version of the module and of the book, in one place."""

__version__ = "0.1.0"
