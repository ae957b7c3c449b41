"""Programs of packages, shut off from the machine: no network, none of its files and processes."""
