"""What Ollama tells of a model's windows. Pure, and free of what takes seconds to import."""

from __future__ import annotations

from typing import Any


def own_window(shown: Any) -> int | None:
    """The longest window that a model has, by what `/api/show` says of it."""
    about = shown.get("model_info") if isinstance(shown, dict) else None
    for name, value in about.items() if isinstance(about, dict) else ():
        if name.endswith(".context_length") and isinstance(value, int) and value > 0:
            return value
    return None


def loaded_window(running: Any, name: str) -> int | None:
    """The window that a model was loaded with, by what `/api/ps` says."""
    models = running.get("models") if isinstance(running, dict) else None
    for one in models if isinstance(models, list) else ():
        if isinstance(one, dict) and one.get("name") in (name, f"{name}:latest"):
            window = one.get("context_length")
            if isinstance(window, int) and window > 0:
                return window
    return None
