"""Environments and workspaces for Python programs: the front door (DESIGN §9)."""
