"""YAML as targets read it: block style, keys in the order given."""

from __future__ import annotations


def yaml_text(*documents: object) -> str:
    """The documents, in the order of their keys as given. Deterministic."""
    import yaml

    return yaml.safe_dump_all(
        documents, sort_keys=False, default_flow_style=False, allow_unicode=False, width=1_000_000
    )
