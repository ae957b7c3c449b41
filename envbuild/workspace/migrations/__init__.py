"""How the schema came about, one revision after the other, run by alembic from ``workspace.migrate``."""
