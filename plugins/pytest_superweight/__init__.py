"""The pytest plugin of superweight."""
