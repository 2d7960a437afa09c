"""Gymnasium environments over search spaces."""
