"""A progress that remembers what people were told."""

from __future__ import annotations

from envbuild.progress import Silent


class Notes(Silent):
    """Keeps the notes, in their order."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)
