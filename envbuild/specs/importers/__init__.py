"""File formats that become a spec: one module or folder a family of formats."""
