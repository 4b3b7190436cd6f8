"""Plugins: the hooks there are, and how plugins are found, loaded apart, blocked and explained."""
