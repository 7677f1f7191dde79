"""Fetching: files from hub, wheel and package index into the cache, verified and resumable."""
